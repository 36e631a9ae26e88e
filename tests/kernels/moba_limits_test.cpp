// Edges of the attention contract: wrong arguments, index arithmetic beyond 2^31 elements, and gradients by differences.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <limits>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "tests/support/moba_run.h"

namespace moba::test {
namespace {

using kernels::AttentionGradArgs;
using kernels::AttentionType;
using kernels::Isa;

class MobaLimits : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { kernels::set_active_isa(GetParam()); }
  void TearDown() override { kernels::set_active_isa(kernels::supported_isas().back()); }
};
INSTANTIATE_TEST_SUITE_P(Isas, MobaLimits, ::testing::ValuesIn(kernels::supported_isas()),
                         [](const auto& info) { return std::string(kernels::isa_name(info.param)); });

const MobaCase kCase{.id = "plain", .k_lens = {20, 30}, .H = 4, .Hk = 2, .D = 8, .S = 8, .K = 3};

// `change` makes one argument wrong; forward and backward must name it and write nothing.
template <class Change>
void expect_refused(const std::string& message, Change&& change) {
  const MobaInputs in = make_inputs(kCase, 1);
  const OracleSelection selection = oracle_select(kCase, in);
  AttentionRun<float> run(kCase, in, selection);
  change(run.args());
  for (const auto& [what, call] : {std::pair{"forward", &AttentionRun<float>::forward}, {"backward", &AttentionRun<float>::backward}}) {
    try {
      (run.*call)();
      ADD_FAILURE() << what << ": accepted, expected " << message;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << what << ": " << e.what();
    }
  }
  EXPECT_TRUE(run.out.untouched() && run.lse.untouched() && run.dq.untouched() && run.dk.untouched() && run.dv.untouched()) << message;
}

TEST_P(MobaLimits, WrongArgumentsAreNamedAndNothingIsWritten) {
  static const int32_t descending[] = {0, 30, 20}, short_end[] = {0, 20, 49}, late_start[] = {1, 20, 50}, fewer_keys[] = {0, 10, 50};
  expect_refused("cu_seqlens_q[2] = 20 is below", [](AttentionGradArgs& a) { a.forward.shape.cu_seqlens_q = descending; });
  expect_refused("cu_seqlens_k[2] = 49", [](AttentionGradArgs& a) { a.forward.shape.cu_seqlens_k = short_end; });
  expect_refused("cu_seqlens_q[0] = 1", [](AttentionGradArgs& a) { a.forward.shape.cu_seqlens_q = late_start; });
  expect_refused("sequence 0 has 20 queries", [](AttentionGradArgs& a) { a.forward.shape.cu_seqlens_k = fewer_keys; });
  expect_refused("cu_seqlens_k is null", [](AttentionGradArgs& a) { a.forward.shape.cu_seqlens_k = nullptr; });
  expect_refused("batch = -1", [](AttentionGradArgs& a) { a.forward.shape.batch = -1; });
  expect_refused("heads = 4 is not a multiple of kv_heads = 3", [](AttentionGradArgs& a) { a.forward.shape.kv_heads = 3; });
  expect_refused("kv_heads = 0", [](AttentionGradArgs& a) { a.forward.shape.kv_heads = 0; });
  expect_refused("head_dim = 257", [](AttentionGradArgs& a) { a.forward.shape.head_dim = 257; });
  expect_refused("head_dim = 0", [](AttentionGradArgs& a) { a.forward.shape.head_dim = 0; });
  expect_refused("chunk_size = 0", [](AttentionGradArgs& a) { a.forward.chunk_size = 0; });
  expect_refused("slots = 0", [](AttentionGradArgs& a) { a.forward.slots = 0; });
  expect_refused("selected is null", [](AttentionGradArgs& a) { a.forward.selected = nullptr; });
  expect_refused("is not a selection", [](AttentionGradArgs& a) { a.forward.chunk_size = 1; });
  expect_refused("dtype = i32", [](AttentionGradArgs& a) { a.forward.dtype = DType::i32; });
  expect_refused("k is null", [](AttentionGradArgs& a) { a.forward.k = nullptr; });
  expect_refused("out is null", [](AttentionGradArgs& a) { a.forward.out = nullptr; });
  expect_refused("window = 0", [](AttentionGradArgs& a) { a.forward.type = AttentionType::window; });
  expect_refused("CUDA", [](AttentionGradArgs& a) { a.forward.stream.device = DeviceType::cuda; });
  for (const double scale : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()})
    expect_refused("softmax_scale = ", [&](AttentionGradArgs& a) { a.forward.softmax_scale = scale; });
}

TEST(MobaLimitsBackward, MissingGradientsAreNamed) {
  const MobaInputs in = make_inputs(kCase, 1);
  const OracleSelection selection = oracle_select(kCase, in);
  for (const auto& [name, member] :
       {std::pair{"dq", &AttentionGradArgs::dq}, {"dk", &AttentionGradArgs::dk}, {"dv", &AttentionGradArgs::dv}}) {
    AttentionRun<float> run(kCase, in, selection);
    run.forward();
    run.args().*member = nullptr;
    try {
      run.backward();
      ADD_FAILURE() << name << " null was accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(std::string(name) + " is null"), std::string::npos) << e.what();
    }
  }
}

// Zero pages until written: gigabytes of address space, megabytes of memory.
class SparseTensor {
 public:
  explicit SparseTensor(int64_t elements) : bytes_(static_cast<size_t>(elements) * sizeof(bf16)) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  ~SparseTensor() { munmap(data_, bytes_); }
  SparseTensor(const SparseTensor&) = delete;
  bf16* data() { return static_cast<bf16*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

// One query on the last tokens of key tensors of more than 2^31 elements; the long sequence before it has no query, so its
// pages stay untouched. All scores are 0, so every token counts the same.
TEST_P(MobaLimits, MoreThanTwoToThe31Elements) {
  constexpr int64_t kHk = 64, kD = 256, kBefore = 131136, kOwn = 160, kTokens = kBefore + kOwn, kStride = kHk * kD, kS = 64;
  static_assert(kBefore * kStride > (int64_t{1} << 31));
  SparseTensor k(kTokens * kStride), v(kTokens * kStride);
  for (int64_t i = 0; i < kStride; ++i) {
    v.data()[(kTokens - 1) * kStride + i] = to_bf16(64.0f);
    v.data()[(kBefore + kS) * kStride + i] = to_bf16(128.0f);  // first token of block 1
  }
  const std::vector<int32_t> cu_q = {0, 0, 1}, cu_k = {0, kBefore, kTokens};
  const std::vector<bf16> q(static_cast<size_t>(kStride), to_bf16(1.0f));
  std::vector<int32_t> selected;
  for (int64_t h = 0; h < kHk; ++h) selected.insert(selected.end(), {2, 1});
  GuardedBuffer<bf16> out(kStride);
  GuardedBuffer<float> lse(kHk);
  kernels::AttentionArgs args;
  args.shape = {2, cu_q.data(), cu_k.data(), 1, kTokens, kHk, kHk, kD};
  args.dtype = DType::bf16;
  args.softmax_scale = 1;
  args.chunk_size = kS;
  args.slots = 2;
  args.selected = selected.data();
  args.q = q.data();
  args.k = k.data();
  args.v = v.data();
  args.out = out.data();
  args.lse = lse.data();
  for (const auto& [type, keys, sum] : {std::tuple{AttentionType::window, 64, 64.0}, {AttentionType::moba, 32 + 64, 192.0}}) {
    args.type = type;
    args.window = 64;
    kernels::attention_forward(args);
    for (int64_t i = 0; i < kStride; i += 37) ASSERT_NEAR(to_float(out[i]), sum / keys, 0.01);
    EXPECT_NEAR(lse[kHk - 1], std::log(keys), 1e-3);
  }
}

// Loss = sum(dout * out) in fp64 by central differences, the selection held.
TEST(MobaGradient, AgreesWithFiniteDifferences) {
  const int threads = num_threads();
  set_num_threads(1);  // thousands of tiny runs: waking a team would be all the time
  for (const AttentionType type : {AttentionType::moba, AttentionType::full, AttentionType::window}) {
    const MobaCase c{
        .id = "differences", .k_lens = {14, 9}, .q_lens = {14, 4}, .H = 4, .Hk = 2, .D = 5, .S = 3, .K = 3, .type = type, .window = 4};
    const MobaInputs in = make_inputs(c, 4);
    const OracleSelection selection = oracle_select(c, in);
    AttentionRun<double> run(c, in, selection);
    run.forward();
    run.backward();
    const auto loss = [&] {
      run.forward();
      double sum = 0;
      for (int64_t i = 0; i < run.out.size(); ++i) sum += run.out[i] * in.dout[static_cast<size_t>(i)];
      return sum;
    };
    const auto check = [&](const char* name, const void* input, const GuardedBuffer<double>& gradient) {
      auto* x = static_cast<double*>(const_cast<void*>(input));  // owned by `run`
      for (int64_t i = 0; i < gradient.size(); ++i) {
        constexpr double kStep = 1e-5;
        const double at = x[i];
        x[i] = at + kStep;
        const double above = loss();
        x[i] = at - kStep;
        const double below = loss();
        x[i] = at;
        ASSERT_NEAR(gradient[i], (above - below) / (2 * kStep), 1e-8) << name << "[" << i << "]";
      }
    };
    check("dq", run.args().forward.q, run.dq);
    check("dk", run.args().forward.k, run.dk);
    check("dv", run.args().forward.v, run.dv);
  }
  set_num_threads(threads);
}

}  // namespace
}  // namespace moba::test
