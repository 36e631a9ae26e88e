// Attention over the table of cases: every variant of this machine against the fp64 oracle, in fp32, bf16 and fp64.
#include <gtest/gtest.h>

#include "kernels/common/dispatch.h"
#include "tests/support/moba_run.h"

namespace moba::test {
namespace {

using kernels::Isa;

// The oracle's answer to a case, computed once per dtype and compared with every variant.
template <class T>
struct Expectation {
  MobaInputs in;
  OracleSelection selection;
  OracleAttention want;
  Tolerance tolerance;

  explicit Expectation(const MobaCase& c) : in(as_read<T>(make_inputs(c, 11))) {
    if (c.type == kernels::AttentionType::moba) selection = c.gate == kernels::Gate::random ? run_gate<float>(c, in) : oracle_select(c, in);
    want = oracle_attention(c, in, selection);
    tolerance = tolerance_for(DTypeOf<T>::value, c, in, selection, want);
  }
};

template <class T>
void expect_case(const MobaCase& c) {
  const Expectation<T> e(c);
  // fp64 has one implementation, whatever the variant.
  const std::vector<Isa> variants = std::is_same_v<T, double> ? std::vector{Isa::reference} : kernels::supported_isas();
  for (const Isa isa : variants) {
    SCOPED_TRACE(std::string(kernels::isa_name(isa)) + " " + dtype_name(DTypeOf<T>::value));
    kernels::set_active_isa(isa);
    AttentionRun<T> run(c, e.in, e.selection);
    run.forward();
    EXPECT_TRUE(close_rms("out", widen(run.out), e.want.out, e.tolerance.out));
    EXPECT_TRUE(close_each("lse", widen(run.lse), e.want.lse, e.tolerance.lse, e.tolerance.lse));
    run.backward();
    EXPECT_TRUE(close_rms("dq", widen(run.dq), e.want.dq, e.tolerance.dq));
    EXPECT_TRUE(close_rms("dk", widen(run.dk), e.want.dk, e.tolerance.dk));
    EXPECT_TRUE(close_rms("dv", widen(run.dv), e.want.dv, e.tolerance.dv));
    EXPECT_TRUE(run.guards_intact()) << "written outside an output";
  }
}

class MobaAttention : public ::testing::TestWithParam<MobaCase> {
 protected:
  void TearDown() override { kernels::set_active_isa(kernels::supported_isas().back()); }
};

TEST_P(MobaAttention, F32) { expect_case<float>(GetParam()); }
TEST_P(MobaAttention, Bf16) { expect_case<bf16>(GetParam()); }
TEST_P(MobaAttention, F64) { expect_case<double>(GetParam()); }

INSTANTIATE_TEST_SUITE_P(Cases, MobaAttention, ::testing::ValuesIn(moba_cases()), [](const auto& info) { return info.param.id; });

}  // namespace
}  // namespace moba::test
