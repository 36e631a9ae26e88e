// Every call into oneDNN (2.6). All products here run on the calling thread: see matmul_tiles.h.
#include <omp.h>

#include <map>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <tuple>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul_tiles.h"

namespace moba::kernels::detail {
namespace {

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

// oneDNN takes its instruction set once per process, before its first use: the variant that is active then.
void cap_instruction_set() {
  static const bool done = [] {
    switch (active_isa()) {
      case Isa::reference:
      case Isa::sse: dnnl::set_max_cpu_isa(dnnl::cpu_isa::sse41); break;
      case Isa::avx2: dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2); break;
      case Isa::avx512: dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core); break;
      case Isa::avx512_bf16: dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16); break;
    }
    return true;
  }();
  static_cast<void>(done);
}

// What a bf16 primitive is built for.
using Key = std::tuple<int64_t, int64_t, int64_t, bool, int64_t, bool, int64_t, DType, int64_t, float, float>;

struct Bf16Product {
  dnnl::matmul primitive;
  dnnl::memory::desc a, b, c, scratchpad;
};

dnnl::engine& engine() {
  static dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

dnnl::memory::desc describe(int64_t rows, int64_t cols, const Operand& x) {
  using Desc = dnnl::memory::desc;
  const dnnl::memory::dims strides = x.transposed ? dnnl::memory::dims{1, x.ld} : dnnl::memory::dims{x.ld, 1};
  return Desc({rows, cols}, dnnl::memory::data_type::bf16, strides);
}

Bf16Product build(const Product& p) {
  Bf16Product made;
  made.a = describe(p.m, p.k, p.a);
  made.b = describe(p.k, p.n, p.b);
  const auto c_type = p.c_dtype == DType::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
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
  made.primitive = dnnl::matmul(pd);
  made.scratchpad = pd.scratchpad_desc();
  return made;
}

// Primitives are kept for the life of the process: a model has a few dozen tile shapes.
const Bf16Product& cached(const Product& p) {
  static std::map<Key, Bf16Product> cache;
  static std::mutex mutex;
  const Key key{p.m, p.n, p.k, p.a.transposed, p.a.ld, p.b.transposed, p.b.ld, p.c_dtype, p.ldc, p.alpha, p.beta};
  std::lock_guard lock(mutex);
  const auto found = cache.find(key);
  if (found != cache.end()) return found->second;
  return cache.emplace(key, build(p)).first->second;
}

}  // namespace

void serial_product_f32(const Product& p) {
  cap_instruction_set();
  const OneThread serial;
  const dnnl_status_t status =
      dnnl_sgemm(p.a.transposed ? 'T' : 'N', p.b.transposed ? 'T' : 'N', p.m, p.n, p.k, p.alpha, static_cast<const float*>(p.a.data),
                 p.a.ld, static_cast<const float*>(p.b.data), p.b.ld, p.beta, static_cast<float*>(p.c), p.ldc);
  MOBA_CHECK(status == dnnl_success, "matmul: oneDNN refused an fp32 product of {} x {} x {} (status {})", p.m, p.n, p.k,
             static_cast<int>(status));
}

void serial_product_bf16(const Product& p) {
  cap_instruction_set();
  const OneThread serial;
  thread_local std::vector<char> scratchpad;
  const Bf16Product& made = cached(p);
  scratchpad.resize(std::max(scratchpad.size(), made.scratchpad.get_size()));
  dnnl::stream stream(engine());
  made.primitive.execute(stream, {{DNNL_ARG_SRC, {made.a, engine(), const_cast<void*>(p.a.data)}},
                                  {DNNL_ARG_WEIGHTS, {made.b, engine(), const_cast<void*>(p.b.data)}},
                                  {DNNL_ARG_DST, {made.c, engine(), p.c}},
                                  {DNNL_ARG_SCRATCHPAD, {made.scratchpad, engine(), scratchpad.data()}}});
  stream.wait();
}

}  // namespace moba::kernels::detail
