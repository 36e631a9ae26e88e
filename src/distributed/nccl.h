// NCCL as an endpoint: libnccl is opened when it is first needed, so a program built with it runs where it is missing. A build
// without nccl.h links no_nccl.cpp. Has not run on NCCL hardware; tests run it through a stand-in library over MPI.
#pragma once
#include "src/distributed/launch.h"
#include "src/distributed/service.h"

namespace moba {

// MOBA_NCCL_LIBRARY names another library file than libnccl.so.2. One device per rank: the local rank's.
// All ranks of `host` call it, from the main thread; NCCL itself is called on the communication thread.
std::shared_ptr<Endpoint> start_nccl(Service& service, Communicator& host, const Launch& launch);

}  // namespace moba
