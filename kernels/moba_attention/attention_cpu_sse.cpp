#include "kernels/moba_attention/attention_cpu_variant.h"

namespace moba::kernels::attention_cpu {
namespace {
struct Words : Fp32Geometry<16, 2> {};
}  // namespace

const KernelTable& table_sse(DType dtype) { return dtype == DType::bf16 ? kVariant<Words, bf16> : kVariant<Words, float>; }

}  // namespace moba::kernels::attention_cpu
