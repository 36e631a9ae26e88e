// A build without nccl.h.
#include "src/distributed/nccl.h"

namespace moba {

std::shared_ptr<Endpoint> start_nccl(Service&, Communicator&, const Launch&) {
  throw Error(
      "this build has no NCCL: put NCCL's nccl.h beside the CUDA toolkit's headers, then configure and build again, or use backend mpi");
}

}  // namespace moba
