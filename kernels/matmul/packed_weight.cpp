// PackedWeight: the product packs its operands block by block in cache, expanding bf16 on the way, so the weight is held as given.
#include <vector>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul.h"

namespace moba::kernels {

struct PackedWeight::Impl {
  int64_t out = 0, in = 0;
  DType dtype = DType::f32;
  std::vector<char> weight;  // [out, in]

  MatmulArgs args(const void* x, void* y, int64_t rows, DType out_dtype) const {
    MatmulArgs p;
    p.m = rows;
    p.dtype = dtype;
    p.out_dtype = out_dtype;
    p.a = x;
    p.b = weight.data();
    p.c = y;
    return p;
  }
};

PackedWeight::PackedWeight() = default;
PackedWeight::~PackedWeight() = default;
PackedWeight::PackedWeight(PackedWeight&&) noexcept = default;
PackedWeight& PackedWeight::operator=(PackedWeight&&) noexcept = default;

bool PackedWeight::empty() const { return !impl_; }

int64_t PackedWeight::bytes() const { return impl_ ? static_cast<int64_t>(impl_->weight.capacity()) : 0; }

void PackedWeight::pack(const void* w, int64_t out, int64_t in, DType dtype) {
  MOBA_CHECK(dtype == DType::f32 || dtype == DType::bf16, "packed weight: dtype {} is not supported; use f32 or bf16", dtype_name(dtype));
  MOBA_CHECK(out >= 1 && in >= 1, "packed weight: sizes must be >= 1, got out {}, in {}", out, in);
  if (!impl_) impl_ = std::make_unique<Impl>();
  impl_->out = out;
  impl_->in = in;
  impl_->dtype = dtype;
  const char* bytes = static_cast<const char*>(w);
  impl_->weight.assign(bytes, bytes + out * in * static_cast<int64_t>(dtype_size(dtype)));
}

void PackedWeight::forward(const void* x, void* y, int64_t rows, DType out_dtype) const {
  MOBA_ASSERT(impl_);
  MatmulArgs p = impl_->args(x, y, rows, out_dtype);
  p.n = impl_->out;
  p.k = impl_->in;
  p.transpose_b = true;
  matmul(p);
}

void PackedWeight::backward_input(const void* dy, void* dx, int64_t rows, DType out_dtype, bool accumulate) const {
  MOBA_ASSERT(impl_);
  MatmulArgs p = impl_->args(dy, dx, rows, out_dtype);
  p.n = impl_->in;
  p.k = impl_->out;
  p.beta = accumulate ? 1.0f : 0.0f;
  matmul(p);
}

}  // namespace moba::kernels
