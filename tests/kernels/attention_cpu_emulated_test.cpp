// The 64-byte geometries of CPU attention, emulated: the same templates as attention_cpu_avx512*.cpp lowered to what this
// machine has, the bf16 dot product in plain vectors in the hardware's order. Table of cases against the fp64 oracle.
#include <gtest/gtest.h>

#include "kernels/moba_attention/attention_cpu.h"
#include "kernels/moba_attention/attention_cpu_variant.h"
#include "tests/support/moba_run.h"

namespace moba::test {
namespace {

using kernels::attention_cpu::KernelTable;

struct Words : kernels::attention_cpu::Fp32Geometry<64, 4> {};
struct Pairs : kernels::attention_cpu::PairGeometry<64, 4> {};

template <class G, class E>
void expect_case(const MobaCase& c) {
  const KernelTable& table = kernels::attention_cpu::kVariant<G, E>;
  const MobaInputs in = as_read<E>(make_inputs(c, 12));
  OracleSelection selection;
  if (c.type == kernels::AttentionType::moba) selection = c.gate == kernels::Gate::random ? run_gate<float>(c, in) : oracle_select(c, in);
  const OracleAttention want = oracle_attention(c, in, selection);
  const Tolerance tolerance = tolerance_for(DTypeOf<E>::value, c, in, selection, want);
  AttentionRun<E> run(c, in, selection);
  kernels::attention_forward_cpu(run.args().forward, table);
  EXPECT_TRUE(close_rms("out", widen(run.out), want.out, tolerance.out));
  EXPECT_TRUE(close_each("lse", widen(run.lse), want.lse, tolerance.lse, tolerance.lse));
  kernels::attention_backward_cpu(run.args(), table);
  EXPECT_TRUE(close_rms("dq", widen(run.dq), want.dq, tolerance.dq));
  EXPECT_TRUE(close_rms("dk", widen(run.dk), want.dk, tolerance.dk));
  EXPECT_TRUE(close_rms("dv", widen(run.dv), want.dv, tolerance.dv));
  EXPECT_TRUE(run.guards_intact()) << "written outside an output";
}

class AttentionCpuEmulated : public ::testing::TestWithParam<MobaCase> {};

TEST_P(AttentionCpuEmulated, Avx512WordsF32) { expect_case<Words, float>(GetParam()); }
TEST_P(AttentionCpuEmulated, Avx512WordsBf16) { expect_case<Words, bf16>(GetParam()); }
TEST_P(AttentionCpuEmulated, Avx512PairsBf16) { expect_case<Pairs, bf16>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Cases, AttentionCpuEmulated, ::testing::ValuesIn(moba_cases()), [](const auto& info) { return info.param.id; });

}  // namespace
}  // namespace moba::test
