// PackedWeight: the product packs its operands tile by tile in cache, so "packed" means held in the type that the product
// multiplies: small bf16 weights are expanded to fp32 once per step where the CPU has no bf16 products.
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/pick_isa.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/matmul/matmul.h"
#include "kernels/matmul/matmul_tiles.h"

namespace moba::kernels {
namespace {

constexpr int64_t kMostExpandedBytes = 8 << 20;  // larger bf16 weights stay bf16 and are expanded in blocks at each use

}  // namespace

struct PackedWeight::Impl {
  int64_t out = 0, in = 0;
  DType dtype = DType::f32;  // of the weight as given
  std::vector<char> original;
  std::vector<float> expanded;  // instead of `original`

  MatmulArgs args(const void* x, void* y, int64_t rows, DType out_dtype) const {
    MatmulArgs p;
    p.m = rows;
    p.dtype = dtype;
    p.out_dtype = out_dtype;
    p.a = x;
    p.b = original.data();
    p.c = y;
    return p;
  }
  void run(const MatmulArgs& p) const;
};

PackedWeight::PackedWeight() = default;
PackedWeight::~PackedWeight() = default;
PackedWeight::PackedWeight(PackedWeight&&) noexcept = default;
PackedWeight& PackedWeight::operator=(PackedWeight&&) noexcept = default;

bool PackedWeight::empty() const { return !impl_; }

int64_t PackedWeight::bytes() const {
  return impl_ ? static_cast<int64_t>(impl_->original.capacity() + impl_->expanded.capacity() * sizeof(float)) : 0;
}

void PackedWeight::pack(const void* w, int64_t out, int64_t in, DType dtype) {
  MOBA_CHECK(dtype == DType::f32 || dtype == DType::bf16, "packed weight: dtype {} is not supported; use f32 or bf16", dtype_name(dtype));
  MOBA_CHECK(out >= 1 && in >= 1, "packed weight: sizes must be >= 1, got out {}, in {}", out, in);
  if (!impl_) impl_ = std::make_unique<Impl>();
  impl_->out = out;
  impl_->in = in;
  impl_->dtype = dtype;
  const int64_t n = out * in;
  const auto expanded_bytes = n * static_cast<int64_t>(sizeof(float));
#ifdef MOBA_ONEDNN
  if (dtype == DType::bf16 && !has_bf16_products() && active_isa() != Isa::reference && expanded_bytes <= kMostExpandedBytes) {
    impl_->original = {};
    impl_->expanded.resize(static_cast<size_t>(n));
    return convert({}, DType::bf16, DType::f32, n, w, impl_->expanded.data());
  }
#endif
  static_cast<void>(expanded_bytes);
  impl_->expanded = {};
  const char* bytes = static_cast<const char*>(w);
  impl_->original.assign(bytes, bytes + n * static_cast<int64_t>(dtype_size(dtype)));
}

void PackedWeight::Impl::run(const MatmulArgs& p) const {
#ifdef MOBA_ONEDNN
  if (!expanded.empty()) {
    detail::Product q;
    q.m = p.m;
    q.n = p.n;
    q.k = p.k;
    q.a = {p.a, p.dtype, false, p.k};
    q.b = {expanded.data(), DType::f32, p.transpose_b, in};
    q.beta = p.beta;
    q.c = p.c;
    q.c_dtype = p.out_dtype;
    q.ldc = p.n;
    if (p.m > 0) detail::tiled_product(q, false);
    return;
  }
#endif
  matmul(p);
}

void PackedWeight::forward(const void* x, void* y, int64_t rows, DType out_dtype) const {
  MOBA_ASSERT(impl_);
  MatmulArgs p = impl_->args(x, y, rows, out_dtype);
  p.n = impl_->out;
  p.k = impl_->in;
  p.transpose_b = true;
  impl_->run(p);
}

void PackedWeight::backward_input(const void* dy, void* dx, int64_t rows, DType out_dtype, bool accumulate) const {
  MOBA_ASSERT(impl_);
  MatmulArgs p = impl_->args(dy, dx, rows, out_dtype);
  p.n = impl_->in;
  p.k = impl_->out;
  p.beta = accumulate ? 1.0f : 0.0f;
  impl_->run(p);
}

}  // namespace moba::kernels
