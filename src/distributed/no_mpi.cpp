// A build without MPI.
#include "src/distributed/mpi.h"

namespace moba {

const char* mpi_missing() {
  return "this build has no MPI: install the Debian packages libopenmpi-dev and openmpi-bin (or your cluster's MPI module), then configure "
         "and build again";
}
std::shared_ptr<Endpoint> start_mpi(const Launch&) { throw Error(mpi_missing()); }
void finish_mpi() {}

}  // namespace moba
