// MPI as an endpoint. A build without MPI links no_mpi.cpp.
#pragma once
#include "src/distributed/endpoint.h"
#include "src/distributed/launch.h"

namespace moba {

const char* mpi_missing();  // nullptr where MPI is built in, else what to do about it
// On the communication thread. Blocks until all ranks have started.
std::shared_ptr<Endpoint> start_mpi(const Launch& launch);
void finish_mpi();

}  // namespace moba
