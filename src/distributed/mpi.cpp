#include "src/distributed/mpi.h"

#define OMPI_SKIP_MPICXX  // the C interface is all that is used
#define MPICH_SKIP_MPICXX
#include <mpi.h>

#include <algorithm>

namespace moba {
namespace {

constexpr int64_t kMessageBytes = int64_t{1} << 30;  // MPI counts are int

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw Error(fmt::format("{}: {}", call, text), ExitCode::rank_lost);
}

class MpiExchange final : public Exchange {
 public:
  MpiExchange(std::span<const Message> sends, std::span<const Message> receives, int tag) {
    for (const Message& m : receives)
      each_part(m, [&](void* at, int bytes) {
        expected_.push_back(bytes);
        check(MPI_Irecv(at, bytes, MPI_BYTE, m.peer, tag, MPI_COMM_WORLD, &requests_.emplace_back()), "MPI_Irecv");
      });
    for (const Message& m : sends)
      each_part(m, [&](void* at, int bytes) {
        check(MPI_Isend(at, bytes, MPI_BYTE, m.peer, tag, MPI_COMM_WORLD, &requests_.emplace_back()), "MPI_Isend");
      });
    statuses_.resize(requests_.size());
  }
  // Requests that have not ended stay with MPI: there is nothing left to do with them after a failure.

  bool done() override {
    if (done_) return true;
    int flag = 0;
    const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &flag, statuses_.data());
    if (code == MPI_ERR_IN_STATUS) {
      for (const MPI_Status& s : statuses_) {
        if (s.MPI_ERROR == MPI_ERR_TRUNCATE) wrong_size(s.MPI_SOURCE, "more");
        if (s.MPI_ERROR != MPI_ERR_PENDING) check(s.MPI_ERROR, "message");
      }
    }
    check(code, "MPI_Testall");
    if (!flag) return false;
    for (size_t i = 0; i < expected_.size(); ++i) {
      int bytes = 0;
      MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes);
      if (bytes != expected_[i]) wrong_size(statuses_[i].MPI_SOURCE, "fewer");
    }
    return done_ = true;
  }

 private:
  template <class F>
  static void each_part(const Message& m, F f) {
    for (int64_t at = 0; at < m.bytes; at += kMessageBytes)
      f(static_cast<char*>(m.data) + at, static_cast<int>(std::min(kMessageBytes, m.bytes - at)));
  }
  [[noreturn]] static void wrong_size(int rank, const char* what) {
    throw Error(fmt::format("rank {} sent {} bytes than expected: the ranks issue different operations", rank, what), ExitCode::rank_lost);
  }
  std::vector<MPI_Request> requests_;  // receives first
  std::vector<MPI_Status> statuses_;
  std::vector<int> expected_;
  bool done_ = false;
};

class MpiEndpoint final : public Endpoint {
 public:
  MpiEndpoint(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* backend() const override { return "mpi"; }
  std::unique_ptr<Exchange> start(std::span<const Message> sends, std::span<const Message> receives, int tag) override {
    return std::make_unique<MpiExchange>(sends, receives, tag);
  }
  void progress() override {
    int flag = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_WORLD, &flag, MPI_STATUS_IGNORE);
  }

 private:
  int rank_, size_;
};

}  // namespace

const char* mpi_missing() { return nullptr; }

std::shared_ptr<Endpoint> start_mpi(const Launch& launch) {
  int provided = 0, rank = 0, size = 0;
  // FUNNELED: the thread that starts MPI is the only one that calls it.
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MOBA_CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI does not support threads (MPI_THREAD_FUNNELED): use one that does");
  MOBA_CHECK(size == launch.size && rank == launch.rank,
             "{} started rank {} of {}, but MPI counts rank {} of {}: start with the mpirun of the MPI that this program was built with",
             launch.by, launch.rank, launch.size, rank, size);
  return std::make_shared<MpiEndpoint>(rank, size);
}

void finish_mpi() { check(MPI_Finalize(), "MPI_Finalize"); }

}  // namespace moba
