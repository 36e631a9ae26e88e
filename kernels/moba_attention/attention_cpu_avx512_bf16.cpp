// bf16 tensors go through bf16 dot products; f32 tensors have nothing to gain here beyond AVX-512.
#include "kernels/moba_attention/attention_cpu_variant.h"

namespace moba::kernels::attention_cpu {
namespace {
struct Pairs : PairGeometry<64, 4> {};
}  // namespace

const KernelTable& table_avx512_bf16(DType dtype) { return dtype == DType::bf16 ? kVariant<Pairs, bf16> : table_avx512(dtype); }

}  // namespace moba::kernels::attention_cpu
