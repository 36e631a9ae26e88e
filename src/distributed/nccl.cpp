#include "src/distributed/nccl.h"

#include <dlfcn.h>
#include <nccl.h>

#include <cstdlib>
#include <cstring>

#include "kernels/elementwise/elementwise.h"
#include "src/autograd/device.h"

namespace moba {
namespace {

struct Library {
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetUniqueId) unique_id;
  decltype(&ncclCommInitRank) init_rank;
  decltype(&ncclCommDestroy) destroy;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) receive;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  bool host_memory = false;  // the tests' stand-in: no device, no streams

  void check(ncclResult_t result, const char* call) const {
    if (result == ncclSuccess || result == ncclInProgress) return;
    throw Error(fmt::format("{}: {} (error {}); NCCL_DEBUG=INFO prints more", call, error_string(result), static_cast<int>(result)),
                ExitCode::rank_lost);
  }
};

Library open_library() {
  const char* path = std::getenv("MOBA_NCCL_LIBRARY");
  const char* file = path ? path : "libnccl.so.2";
  void* handle = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (!handle)
    throw Error(
        fmt::format("NCCL cannot be loaded ({}): install libnccl2, or name the file in MOBA_NCCL_LIBRARY, or use backend mpi", dlerror()));
  Library library;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    MOBA_CHECK(function, "{} has no {}: NCCL 2.7 or newer is needed", file, name);
  };
  find(library.error_string, "ncclGetErrorString");
  find(library.unique_id, "ncclGetUniqueId");
  find(library.init_rank, "ncclCommInitRank");
  find(library.destroy, "ncclCommDestroy");
  find(library.async_error, "ncclCommGetAsyncError");
  find(library.send, "ncclSend");
  find(library.receive, "ncclRecv");
  find(library.group_start, "ncclGroupStart");
  find(library.group_end, "ncclGroupEnd");
  library.host_memory = dlsym(handle, "moba_nccl_host_memory") != nullptr;
  return library;
}

class NcclEndpoint final : public Endpoint {
 public:
  NcclEndpoint(Library library, Device device, int rank, int size, const ncclUniqueId& id)
      : library_(library), device_(device), rank_(rank), size_(size) {
    backend_device().synchronize(device_.index);  // makes it the current device of this thread
    library_.check(library_.init_rank(&communicator_, size, id, rank), "ncclCommInitRank");
  }
  // An orderly end is close(). Otherwise ranks are lost, and ncclCommDestroy would wait for them.

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const char* backend() const override { return "nccl"; }
  Device device() const override { return device_; }
  bool concurrent() const override { return false; }  // one stream: what was started first is waited for first

  std::unique_ptr<Exchange> start(std::span<const Message> sends, std::span<const Message> receives, int) override {
    // Groups share the NCCL communicator: messages between two ranks keep the order of issue, which is the same on both.
    library_.check(library_.group_start(), "ncclGroupStart");
    for (const Message& m : receives)
      library_.check(library_.receive(m.data, static_cast<size_t>(m.bytes), ncclInt8, m.peer, communicator_, stream()), "ncclRecv");
    for (const Message& m : sends)
      library_.check(library_.send(m.data, static_cast<size_t>(m.bytes), ncclInt8, m.peer, communicator_, stream()), "ncclSend");
    library_.check(library_.group_end(), "ncclGroupEnd");
    return std::make_unique<Pending>(*this);
  }

  void combine(DType dtype, ReduceOp op, int64_t n, const void* lower, const void* upper, void* out) override {
    if (device_.type == DeviceType::cpu) return combine_host(dtype, op, n, lower, upper, out);
    if (op == ReduceOp::sum && (dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64))
      return kernels::add(backend_device().current_stream(device_.index), dtype, n, lower, upper, out);
    // Rare and small: counters, the largest of a few numbers.
    const auto bytes = static_cast<size_t>(n) * dtype_size(dtype);
    std::vector<char> a(bytes), b(bytes);
    backend_device().copy_to_host(a.data(), lower, bytes, backend_device().current_stream(device_.index));
    backend_device().copy_to_host(b.data(), upper, bytes, backend_device().current_stream(device_.index));
    combine_host(dtype, op, n, a.data(), b.data(), a.data());
    backend_device().copy_from_host(out, a.data(), bytes, backend_device().current_stream(device_.index));
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    if (bytes > 0 && to != from)
      backend_device().copy(to, from, static_cast<size_t>(bytes), backend_device().current_stream(device_.index));
  }
  void close() override {
    if (communicator_) library_.check(library_.destroy(communicator_), "ncclCommDestroy");
    communicator_ = nullptr;
  }

 private:
  struct Pending final : Exchange {
    explicit Pending(NcclEndpoint& e) : endpoint(e) {}
    bool done() override {
      ncclResult_t state = ncclSuccess;
      endpoint.library_.check(endpoint.library_.async_error(endpoint.communicator_, &state), "ncclCommGetAsyncError");
      endpoint.library_.check(state, "NCCL");
      if (state == ncclInProgress) return false;
      // Waits on the device without a limit of its own; the watchdog's limit holds meanwhile.
      endpoint.backend_device().synchronize(endpoint.device_.index);
      return true;
    }
    NcclEndpoint& endpoint;
  };
  DeviceBackend& backend_device() const { return device_backend(device_.type); }
  cudaStream_t stream() const { return static_cast<cudaStream_t>(backend_device().current_stream(device_.index).handle); }

  const Library library_;
  const Device device_;
  const int rank_, size_;
  ncclComm_t communicator_ = nullptr;
};

}  // namespace

std::shared_ptr<Endpoint> start_nccl(Service& service, Communicator& host, const Launch& launch) {
  const Library library = open_library();
  Device device;
  if (!library.host_memory) {
    const int devices = cuda_backend().count();
    MOBA_CHECK(devices > 0, "backend nccl needs a GPU for each rank, this host has none ({}): use backend mpi",
               cuda_backend().description());
    device = {DeviceType::cuda, launch.local_rank % devices};
  }
  const Tensor shared = Tensor::zeros({static_cast<int64_t>(sizeof(ncclUniqueId) / sizeof(int32_t))}, DType::i32);
  if (host.rank() == 0)
    service.run("ncclGetUniqueId", [&] { library.check(library.unique_id(static_cast<ncclUniqueId*>(shared.raw())), "ncclGetUniqueId"); });
  host.broadcast(shared, 0, "NCCL's id").wait();
  std::shared_ptr<Endpoint> endpoint;
  service.run("ncclCommInitRank", [&] {
    ncclUniqueId id;
    std::memcpy(&id, shared.raw(), sizeof id);
    endpoint = std::make_shared<NcclEndpoint>(library, device, host.rank(), host.size(), id);
  });
  return endpoint;
}

}  // namespace moba
