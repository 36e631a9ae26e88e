// Matrix products on the GPU by cuBLASLt. The library (over 500 MB) is opened at the first product, through pointers whose
// types come from its real header, so one binary starts with or without a CUDA installation.
// Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T: operands are passed in swapped order.
#include <cublasLt.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <utility>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul_cuda.h"

namespace moba::kernels::cuda {
namespace {

#define MOBA_STRINGIFY_(x) #x
#define MOBA_STRINGIFY(x) MOBA_STRINGIFY_(x)
constexpr const char* kLibrary = "libcublasLt.so." MOBA_STRINGIFY(CUBLAS_VER_MAJOR);
constexpr size_t kWorkspaceBytes = 32u << 20;

struct Lt {
  decltype(&cublasLtCreate) create;
  decltype(&cublasLtMatmul) matmul;
  decltype(&cublasLtMatmulDescCreate) desc_create;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&cublasLtMatrixLayoutCreate) layout_create;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
};

void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(fmt::format("cuBLASLt: {} failed with status {}", what, static_cast<int>(status)), ExitCode::io);
}

template <class F>
void resolve(void* library, F& function, const char* name) {
  function = reinterpret_cast<F>(dlsym(library, name));
  MOBA_CHECK(function, "{} has no {}: install CUDA 12.9 or newer", kLibrary, name);
}

Lt open_library() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  MOBA_CHECK(library, "matrix products on the GPU need {}: install the CUDA toolkit's cuBLAS or use --device cpu ({})", kLibrary,
             dlerror());
  Lt lt;
  resolve(library, lt.create, "cublasLtCreate");
  resolve(library, lt.matmul, "cublasLtMatmul");
  resolve(library, lt.desc_create, "cublasLtMatmulDescCreate");
  resolve(library, lt.desc_destroy, "cublasLtMatmulDescDestroy");
  resolve(library, lt.desc_set, "cublasLtMatmulDescSetAttribute");
  resolve(library, lt.layout_create, "cublasLtMatrixLayoutCreate");
  resolve(library, lt.layout_destroy, "cublasLtMatrixLayoutDestroy");
  resolve(library, lt.preference_create, "cublasLtMatmulPreferenceCreate");
  resolve(library, lt.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  resolve(library, lt.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  resolve(library, lt.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  check(lt.create(&lt.handle), "cublasLtCreate");
  MOBA_CHECK(cudaMalloc(&lt.workspace, kWorkspaceBytes) == cudaSuccess, "cuBLASLt: no device memory for a workspace of {} bytes",
             kWorkspaceBytes);
  return lt;
}

const Lt& library() {
  static const Lt lt = open_library();
  return lt;
}

cudaDataType_t data_type(DType t) {
  MOBA_CHECK(t == DType::f32 || t == DType::bf16, "matmul on CUDA takes f32 or bf16, got {}", dtype_name(t));
  return t == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// Destroys its handle at the end of the scope, also when a later call throws.
template <class Handle, class Destroy>
struct Owned {
  Handle handle = nullptr;
  Destroy destroy;
  explicit Owned(Destroy d) : destroy(d) {}
  ~Owned() {
    if (handle) destroy(handle);
  }
};

}  // namespace

void matmul(const MatmulArgs& args) {
  if (args.m == 0 || args.n == 0) return;
  const Lt& lt = library();
  MOBA_CHECK(cudaSetDevice(args.stream.index) == cudaSuccess, "CUDA device {} can't be used", args.stream.index);
  const auto in = data_type(args.dtype), out = data_type(args.out_dtype);
  const int64_t lda = args.lda ? args.lda : (args.transpose_a ? args.m : args.k);
  const int64_t ldb = args.ldb ? args.ldb : (args.transpose_b ? args.k : args.n);
  const int64_t ldc = args.ldc ? args.ldc : args.n;

  Owned<cublasLtMatmulDesc_t, decltype(lt.desc_destroy)> desc(lt.desc_destroy);
  check(lt.desc_create(&desc.handle, CUBLAS_COMPUTE_32F, CUDA_R_32F), "descriptor");
  const cublasOperation_t op_a = args.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, op_b = args.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  check(lt.desc_set(desc.handle, CUBLASLT_MATMUL_DESC_TRANSA, &op_b, sizeof op_b), "transpose of B");
  check(lt.desc_set(desc.handle, CUBLASLT_MATMUL_DESC_TRANSB, &op_a, sizeof op_a), "transpose of A");

  // A row-major stored matrix [rows, cols] with row stride ld is column-major [cols, rows] with leading dimension ld.
  using Layout = Owned<cublasLtMatrixLayout_t, decltype(lt.layout_destroy)>;
  Layout a(lt.layout_destroy), b(lt.layout_destroy), c(lt.layout_destroy);
  const auto stored_a = args.transpose_a ? std::pair{args.k, args.m} : std::pair{args.m, args.k};
  const auto stored_b = args.transpose_b ? std::pair{args.n, args.k} : std::pair{args.k, args.n};
  check(lt.layout_create(&a.handle, in, static_cast<uint64_t>(stored_a.second), static_cast<uint64_t>(stored_a.first), lda), "layout of A");
  check(lt.layout_create(&b.handle, in, static_cast<uint64_t>(stored_b.second), static_cast<uint64_t>(stored_b.first), ldb), "layout of B");
  check(lt.layout_create(&c.handle, out, static_cast<uint64_t>(args.n), static_cast<uint64_t>(args.m), ldc), "layout of C");

  Owned<cublasLtMatmulPreference_t, decltype(lt.preference_destroy)> preference(lt.preference_destroy);
  check(lt.preference_create(&preference.handle), "preference");
  check(lt.preference_set(preference.handle, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes, sizeof kWorkspaceBytes),
        "workspace size");
  cublasLtMatmulHeuristicResult_t choice{};
  int found = 0;
  check(lt.heuristic(lt.handle, desc.handle, b.handle, a.handle, c.handle, c.handle, preference.handle, 1, &choice, &found),
        "algorithm choice");
  MOBA_CHECK(found == 1, "cuBLASLt has no algorithm for [{}, {}] x [{}, {}]", args.m, args.k, args.k, args.n);
  check(lt.matmul(lt.handle, desc.handle, &args.alpha, args.b, b.handle, args.a, a.handle, &args.beta, args.c, c.handle, args.c, c.handle,
                  &choice.algo, lt.workspace, kWorkspaceBytes, static_cast<cudaStream_t>(args.stream.handle)),
        "product");
}

}  // namespace moba::kernels::cuda
