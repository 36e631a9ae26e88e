// A libnccl for tests: NCCL's C ABI, as the real nccl.h declares it, over MPI. "Device" memory is host memory and there is one stream,
// on which groups run in order. As in NCCL a group only starts the messages; ncclCommGetAsyncError tells whether they are under way.
// It refuses unbalanced groups, messages whose two sides differ in size, and unknown peers.
#define OMPI_SKIP_MPICXX
#include <mpi.h>
#include <nccl.h>

#include <cstring>
#include <vector>

struct ncclComm {
  MPI_Comm mpi;
  int rank, size;
  std::vector<MPI_Request> requests;
  std::vector<MPI_Status> statuses;
  std::vector<int> expected;  // bytes of receives; -1: a send
};

namespace {

int depth = 0;

ncclResult_t result(int code) { return code == MPI_SUCCESS ? ncclSuccess : ncclSystemError; }

ncclResult_t check(const ncclComm* c, const void* data, size_t count, ncclDataType_t type, int peer) {
  if (!c || peer < 0 || peer >= c->size || (count > 0 && !data) || type != ncclInt8 || count > (size_t{1} << 31) - 1)
    return ncclInvalidArgument;
  // Outside a group a message alone would be its own group; the adapter always opens one.
  return depth > 0 ? ncclSuccess : ncclInvalidUsage;
}

}  // namespace

extern "C" {

extern const int moba_nccl_host_memory = 1;

const char* ncclGetErrorString(ncclResult_t r) {
  switch (r) {
    case ncclSuccess: return "no error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    default: return "unhandled system error";
  }
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id, 0, sizeof *id);
  std::strcpy(id->internal, "stand-in");
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  if (std::strcmp(id.internal, "stand-in") != 0) return ncclInvalidArgument;  // rank 0's id did not arrive
  auto* c = new ncclComm{MPI_COMM_NULL, rank, size, {}, {}, {}};
  if (MPI_Comm_split(MPI_COMM_WORLD, 0, rank, &c->mpi) != MPI_SUCCESS) return ncclSystemError;
  int counted = 0;
  MPI_Comm_size(c->mpi, &counted);
  MPI_Comm_set_errhandler(c->mpi, MPI_ERRORS_RETURN);
  *comm = c;
  return counted == size ? ncclSuccess : ncclInvalidArgument;
}

ncclResult_t ncclCommDestroy(ncclComm_t c) {
  if (!c || !c->requests.empty()) return ncclInvalidUsage;
  const int code = MPI_Comm_free(&c->mpi);
  delete c;
  return result(code);
}

ncclResult_t ncclGroupStart() {
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() { return --depth < 0 ? ncclInvalidUsage : ncclSuccess; }

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t) {
  if (const ncclResult_t r = check(c, data, count, type, peer); r != ncclSuccess) return r;
  c->expected.push_back(-1);
  return result(MPI_Isend(data, static_cast<int>(count), MPI_BYTE, peer, 0, c->mpi, &c->requests.emplace_back()));
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t c, cudaStream_t) {
  if (const ncclResult_t r = check(c, data, count, type, peer); r != ncclSuccess) return r;
  c->expected.push_back(static_cast<int>(count));
  return result(MPI_Irecv(data, static_cast<int>(count), MPI_BYTE, peer, 0, c->mpi, &c->requests.emplace_back()));
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* state) {
  int ended = 0;
  c->statuses.resize(c->requests.size());
  *state = result(MPI_Testall(static_cast<int>(c->requests.size()), c->requests.data(), &ended, c->statuses.data()));
  if (*state != ncclSuccess) return ncclSuccess;
  if (!ended) {
    *state = ncclInProgress;
    return ncclSuccess;
  }
  for (size_t i = 0; i < c->expected.size(); ++i) {
    int bytes = 0;
    MPI_Get_count(&c->statuses[i], MPI_BYTE, &bytes);
    if (c->expected[i] >= 0 && bytes != c->expected[i]) *state = ncclInvalidArgument;
  }
  c->requests.clear();
  c->expected.clear();
  return ncclSuccess;
}

}  // extern "C"
