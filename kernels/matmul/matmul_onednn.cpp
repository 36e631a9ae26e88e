// Every call into oneDNN (2.6): bf16 products on CPUs with bf16 instructions. Left alone, oneDNN splits K by the number of threads,
// so C is cut into tiles by its shape alone and each tile is computed by one thread.
#include <omp.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/matmul/matmul_native.h"

namespace moba::kernels::detail {
namespace {

constexpr int64_t kTile = 512;       // rows and columns of a full tile
constexpr int64_t kLeastTile = 128;  // small outputs are cut down to this, so that several threads find work
constexpr int64_t kWantedTiles = 16;

struct TileShape {
  int64_t m, n;
};

int64_t pieces(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

TileShape choose_tile(int64_t m, int64_t n) {
  TileShape t = {std::min(m, kTile), std::min(n, kTile)};
  while (pieces(m, t.m) * pieces(n, t.n) < kWantedTiles && std::max(t.m, t.n) > kLeastTile) {
    int64_t& longer = t.m > t.n ? t.m : t.n;
    longer = std::max(kLeastTile, longer / 2);
  }
  return t;
}

// oneDNN asks OpenMP for its team size; the setting belongs to the calling thread only.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

dnnl::engine& engine() {
  static dnnl::engine cpu = [] {
    dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);  // the variant that is active, whatever more the CPU has
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  return cpu;
}

// What a primitive is built for: m, n, k, transposes, strides, type of C, alpha, beta.
using Key = std::tuple<int64_t, int64_t, int64_t, bool, int64_t, bool, int64_t, DType, int64_t, float, float>;

struct Primitive {
  dnnl::matmul product;
  dnnl::memory::desc a, b, c, scratchpad;
};

dnnl::memory::desc describe(int64_t rows, int64_t cols, bool transposed, int64_t ld) {
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, ld} : dnnl::memory::dims{ld, 1};
  return dnnl::memory::desc({rows, cols}, dnnl::memory::data_type::bf16, strides);
}

Primitive build(const MatmulArgs& p) {
  Primitive made;
  made.a = describe(p.m, p.k, p.transpose_a, p.lda);
  made.b = describe(p.k, p.n, p.transpose_b, p.ldb);
  const auto c_type = p.out_dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
  made.c = dnnl::memory::desc({p.m, p.n}, c_type, dnnl::memory::dims{p.ldc, 1});
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // the library's own is not safe for several threads
  if (p.alpha != 1) attr.set_output_scales(0, {p.alpha});
  if (p.beta != 0) {
    dnnl::post_ops sum;
    sum.append_sum(p.beta);
    attr.set_post_ops(sum);
  }
  const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(made.a, made.b, made.c), attr, engine());
  made.product = dnnl::matmul(pd);
  made.scratchpad = pd.scratchpad_desc();
  return made;
}

// Primitives are kept for the life of the process: a model has a few dozen tile shapes.
const Primitive& cached(const MatmulArgs& p) {
  static std::map<Key, Primitive> cache;
  static std::mutex mutex;
  const Key key{p.m, p.n, p.k, p.transpose_a, p.lda, p.transpose_b, p.ldb, p.out_dtype, p.ldc, p.alpha, p.beta};
  std::lock_guard lock(mutex);
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  return cache.emplace(key, build(p)).first->second;
}

// All strides of `p` are filled in.
void serial_product(const MatmulArgs& p) {
  const OneThread serial;
  thread_local std::vector<char> scratchpad;
  const Primitive& made = cached(p);
  scratchpad.resize(std::max(scratchpad.size(), made.scratchpad.get_size()));
  dnnl::stream stream(engine());
  made.product.execute(stream, {{DNNL_ARG_SRC, {made.a, engine(), const_cast<void*>(p.a)}},
                                {DNNL_ARG_WEIGHTS, {made.b, engine(), const_cast<void*>(p.b)}},
                                {DNNL_ARG_DST, {made.c, engine(), p.c}},
                                {DNNL_ARG_SCRATCHPAD, {made.scratchpad, engine(), scratchpad.data()}}});
  stream.wait();
}

}  // namespace

void native_bf16_product(const MatmulArgs& args) {
  MatmulArgs p = args;
  if (!p.lda) p.lda = p.transpose_a ? p.m : p.k;
  if (!p.ldb) p.ldb = p.transpose_b ? p.k : p.n;
  if (!p.ldc) p.ldc = p.n;
  const TileShape shape = choose_tile(p.m, p.n);
  const int64_t across = pieces(p.n, shape.n);
  parallel_items(pieces(p.m, shape.m) * across, [&](int64_t item, int) {
    const int64_t row = item / across * shape.m, col = item % across * shape.n;
    MatmulArgs tile = p;
    tile.m = std::min(shape.m, p.m - row);
    tile.n = std::min(shape.n, p.n - col);
    tile.a = static_cast<const bf16*>(p.a) + (p.transpose_a ? row : row * p.lda);
    tile.b = static_cast<const bf16*>(p.b) + (p.transpose_b ? col * p.ldb : col);
    tile.c = static_cast<char*>(p.c) + (row * p.ldc + col) * static_cast<int64_t>(dtype_size(p.out_dtype));
    serial_product(tile);
  });
}

}  // namespace moba::kernels::detail
