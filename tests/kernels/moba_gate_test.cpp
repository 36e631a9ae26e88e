// The gate over the table of cases: every variant against the fp64 oracle, exact where scores are exact (routing contract a),
// within the score tolerance on random data (routing contract b), and its rules one by one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "kernels/common/check.h"
#include "kernels/common/threads.h"
#include "kernels/moba_gate/moba_gate_cpu.h"
#include "kernels/moba_gate/moba_gate_lanes_impl.h"
#include "tests/support/moba_run.h"

namespace moba::test {
namespace {

using kernels::Gate;
using kernels::Isa;
using kernels::Select;

bool has_oracle(const MobaCase& c) { return c.type == kernels::AttentionType::moba && c.gate != Gate::random; }

std::vector<MobaCase> gate_cases() {
  std::vector<MobaCase> cases;
  for (const MobaCase& c : moba_cases())
    if (has_oracle(c)) cases.push_back(c);
  // Both sides of the change from insertion to sorting, with odd tails.
  for (const int64_t K : {32, 33, 34, 35})
    cases.push_back({.id = "topk_" + std::to_string(K) + "_near_the_change_of_method", .k_lens = {211}, .S = 3, .K = K});
  return cases;
}

class MobaGate : public ::testing::TestWithParam<MobaCase> {
 protected:
  void TearDown() override { kernels::set_active_isa(kernels::supported_isas().back()); }
};

// ---- contract (a)

template <class T>
void expect_exact(const MobaCase& c) {
  const MobaInputs in = as_read<T>(make_inputs(c, 3, true));
  const OracleSelection want = oracle_select(c, in);
  for (const Isa isa : kernels::supported_isas()) {
    kernels::set_active_isa(isa);
    const OracleSelection got = run_gate<T>(c, in);
    ASSERT_EQ(got.slots, want.slots);
    EXPECT_EQ(got.selected, want.selected) << kernels::isa_name(isa) << " " << dtype_name(DTypeOf<T>::value);
  }
}

TEST_P(MobaGate, ExactScoresSelectExactlyF32) {
  if (GetParam().gate != Gate::oracle) expect_exact<float>(GetParam());
}
TEST_P(MobaGate, ExactScoresSelectExactlyBf16) {
  if (GetParam().gate != Gate::oracle) expect_exact<bf16>(GetParam());
}

// AVX-512 code computes the same in narrower steps, so its lanes are tested on any machine.
TEST_P(MobaGate, WidestLanesSelectExactly) {
  const MobaCase& c = GetParam();
  if (c.gate != Gate::mean && c.gate != Gate::minmax) return;
  const MobaInputs in = make_inputs(c, 3, true);
  const OracleSelection want = oracle_select(c, in);
  kernels::MobaGateArgs args = gate_args(c, in, DType::f32, in.q.data(), in.k.data());
  GuardedBuffer<int32_t> selected(std::ssize(want.selected));
  args.selected = selected.data();
  kernels::moba_gate_cpu(args, kernels::Gate32<64, 12>::kLoops);
  EXPECT_TRUE(std::equal(want.selected.begin(), want.selected.end(), selected.data()));
  EXPECT_TRUE(selected.guards_intact());
}

// ---- contract (b)

// Size of a typical score times the allowed relative error; bounds of minmax take the place of centroids.
double score_tolerance(const MobaCase& c, const MobaInputs& in, int64_t s, int64_t query, int64_t row) {
  const int64_t rows = c.select == Select::per_group ? c.Hk : c.H, heads = c.H / rows;
  const int64_t q0 = in.cu_q[static_cast<size_t>(s)], k0 = in.cu_k[static_cast<size_t>(s)];
  double q_norm = 0, largest = 0;
  for (int64_t h = row * heads; h < (row + 1) * heads; ++h) {
    double sum = 0;
    for (int64_t d = 0; d < c.D; ++d) sum += std::pow(in.q[static_cast<size_t>(((q0 + query) * c.H + h) * c.D + d)], 2);
    q_norm += std::sqrt(sum);
  }
  const int64_t kv_head = row * heads / (c.H / c.Hk);
  for (int64_t b = 0; b + 1 < (c.k_lens[static_cast<size_t>(s)] + c.S - 1) / c.S; ++b) {
    double sum = 0;
    for (int64_t d = 0; d < c.D; ++d) {
      double mean = 0, bound = 0;
      for (int64_t t = b * c.S; t < (b + 1) * c.S; ++t) {
        const double x = in.k[static_cast<size_t>(((k0 + t) * c.Hk + kv_head) * c.D + d)];
        mean += x / static_cast<double>(c.S);
        bound = std::max(bound, std::abs(x));
      }
      sum += std::pow(c.gate == Gate::minmax ? bound : mean, 2);
    }
    largest = std::max(largest, std::sqrt(sum));
  }
  return 2e-5 * q_norm * largest / std::sqrt(static_cast<double>(c.D));
}

// Own first, distinct history blocks, as many as there are, none worse than the oracle's K-1st best.
void expect_row(const MobaCase& c, const MobaInputs& in, const OracleSelection& got, int64_t s, int64_t query, int64_t row) {
  const int64_t p = c.k_lens[static_cast<size_t>(s)] - c.queries()[static_cast<size_t>(s)] + query, own = p / c.S;
  const int32_t* entry = &got.selected[static_cast<size_t>(((in.cu_q[static_cast<size_t>(s)] + query) * got.rows + row) * got.slots)];
  ASSERT_EQ(entry[0], own);
  const int64_t take = std::min(c.K - 1, own);
  for (int64_t j = 1 + take; j < got.slots; ++j) ASSERT_EQ(entry[j], -1);
  const std::set<int32_t> distinct(entry + 1, entry + 1 + take);
  ASSERT_EQ(std::ssize(distinct), take);
  if (take == 0) return;
  ASSERT_GE(*distinct.begin(), 0);
  ASSERT_LT(*distinct.rbegin(), own);
  const std::vector<double> scores = oracle_scores(c, in, s, query, row);
  std::vector<double> sorted = scores;
  std::sort(sorted.rbegin(), sorted.rend());
  const double tolerance = score_tolerance(c, in, s, query, row);
  for (int64_t j = 1; j <= take; ++j) {
    ASSERT_GE(scores[static_cast<size_t>(entry[j])], sorted[static_cast<size_t>(take - 1)] - tolerance);
    if (j == 1) continue;
    ASSERT_GE(scores[static_cast<size_t>(entry[j - 1])], scores[static_cast<size_t>(entry[j])] - tolerance) << "not descending";
  }
}

template <class T>
void expect_close(const MobaCase& c) {
  const MobaInputs in = as_read<T>(make_inputs(c, 17));
  for (const Isa isa : kernels::supported_isas()) {
    kernels::set_active_isa(isa);
    SCOPED_TRACE(kernels::isa_name(isa));
    const OracleSelection got = run_gate<T>(c, in);
    const int64_t step = in.tokens_q() > 500 ? 17 : 1;  // the oracle is slow
    for (int64_t s = 0; s < std::ssize(c.k_lens); ++s)
      for (int64_t query = 0; query < c.queries()[static_cast<size_t>(s)]; query += step)
        for (int64_t row = 0; row < got.rows; ++row) {
          expect_row(c, in, got, s, query, row);
          if (::testing::Test::HasFatalFailure()) FAIL() << "sequence " << s << " query " << query << " row " << row;
        }
  }
}

TEST_P(MobaGate, RandomScoresWithinToleranceF32) {
  if (GetParam().gate == Gate::mean || GetParam().gate == Gate::minmax) expect_close<float>(GetParam());
}
TEST_P(MobaGate, RandomScoresWithinToleranceBf16) {
  if (GetParam().gate == Gate::mean || GetParam().gate == Gate::minmax) expect_close<bf16>(GetParam());
}

TEST_P(MobaGate, TrueMassSelectsAsTheOracle) {
  const MobaCase& c = GetParam();
  if (c.gate != Gate::oracle) return;
  const auto check = [&]<class T>(T) {
    const MobaInputs in = as_read<T>(make_inputs(c, 17));
    const OracleSelection want = oracle_select(c, in);
    for (const Isa isa : kernels::supported_isas()) {
      kernels::set_active_isa(isa);
      EXPECT_EQ(run_gate<T>(c, in).selected, want.selected) << kernels::isa_name(isa) << " " << dtype_name(DTypeOf<T>::value);
    }
  };
  check(float{});
  check(bf16{});
}

INSTANTIATE_TEST_SUITE_P(Cases, MobaGate, ::testing::ValuesIn(gate_cases()), [](const auto& info) { return info.param.id; });

// ---- rules, one by one, in every variant

class MobaGateRule : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override { kernels::set_active_isa(GetParam()); }
  void TearDown() override { kernels::set_active_isa(kernels::supported_isas().back()); }
};
INSTANTIATE_TEST_SUITE_P(Isas, MobaGateRule, ::testing::ValuesIn(kernels::supported_isas()),
                         [](const auto& info) { return std::string(kernels::isa_name(info.param)); });

const MobaCase kPlain{.id = "plain", .k_lens = {100}, .H = 2, .Hk = 1, .D = 24, .S = 8, .K = 4};

std::vector<int32_t> row_of(const OracleSelection& selection, int64_t token, int64_t row) {
  const auto begin = selection.selected.begin() + (token * selection.rows + row) * selection.slots;
  return {begin, begin + selection.slots};
}

TEST_P(MobaGateRule, EqualScoresPreferRecentBlocks) {
  for (const Gate gate : {Gate::mean, Gate::minmax}) {
    MobaCase c = kPlain;
    c.gate = gate;
    MobaInputs in = make_inputs(c, 1);
    std::fill(in.k.begin(), in.k.end(), 0.5f);
    EXPECT_EQ(row_of(run_gate<float>(c, in), 99, 1), (std::vector<int32_t>{12, 11, 10, 9}));
  }
}

TEST_P(MobaGateRule, ANaNKeyMakesItsBlockNoCandidate) {
  for (const Gate gate : {Gate::mean, Gate::minmax}) {
    MobaCase c = kPlain;
    c.gate = gate;
    c.K = 200;
    MobaInputs in = make_inputs(c, 1);
    in.k[static_cast<size_t>((3 * c.S + 2) * c.D + 5)] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<int32_t> row = row_of(run_gate<float>(c, in), 99, 0);
    EXPECT_EQ(std::count(row.begin(), row.end(), 3), 0);
    EXPECT_EQ(std::count(row.begin(), row.end(), -1), 1);
    EXPECT_EQ(row.back(), -1);
  }
}

TEST_P(MobaGateRule, ANaNQueryReadsItsOwnBlockOnly) {
  MobaInputs in = make_inputs(kPlain, 1);
  in.q[static_cast<size_t>((60 * kPlain.H + 1) * kPlain.D)] = std::numeric_limits<float>::quiet_NaN();
  const MobaInputs clean = make_inputs(kPlain, 1);
  const OracleSelection got = run_gate<float>(kPlain, in), want = run_gate<float>(kPlain, clean);
  EXPECT_EQ(row_of(got, 60, 1), (std::vector<int32_t>{7, -1, -1, -1}));
  for (int64_t token = 0; token < 100; ++token)
    for (int64_t row = 0; row < 2; ++row)
      EXPECT_TRUE((token == 60 && row == 1) || row_of(got, token, row) == row_of(want, token, row)) << token;
}

TEST_P(MobaGateRule, InfiniteScoresAreOrdinary) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  MobaCase c = kPlain;
  c.H = 1;
  MobaInputs in = make_inputs(c, 1, true);
  std::fill(in.q.begin(), in.q.end(), 1.0f);
  in.k[static_cast<size_t>(2 * c.S * c.D)] = kInf;
  for (const int64_t block : {4, 5}) in.k[static_cast<size_t>(block * c.S * c.D)] = -kInf;
  EXPECT_EQ(row_of(run_gate<float>(c, in), 99, 0)[1], 2);
  c.K = 200;
  const std::vector<int32_t> row = row_of(run_gate<float>(c, in), 99, 0);
  EXPECT_EQ((std::vector<int32_t>(row.end() - 2, row.end())), (std::vector<int32_t>{5, 4}));
}

TEST_P(MobaGateRule, TheLastBlockHasNoCentroid) {
  MobaCase c = kPlain;
  c.k_lens = {0, 1, 8, 9, 16, 17, 100};
  const MobaInputs in = make_inputs(c, 2);
  const kernels::AttentionShape shape = shape_of(c, in);
  EXPECT_EQ(kernels::moba_centroid_rows(shape, c.S), 0 + 0 + 0 + 1 + 1 + 2 + 12);
  GuardedBuffer<float> centroids(16 * c.D);
  kernels::moba_centroids(gate_args(c, in, DType::f32, nullptr, in.k.data()), centroids.data());
  EXPECT_TRUE(centroids.guards_intact());
  int64_t row = 0;
  for (size_t s = 0; s < c.k_lens.size(); ++s)
    for (int64_t b = 0; (b + 1) * c.S < c.k_lens[s]; ++b, ++row)
      for (int64_t d = 0; d < c.D; ++d) {
        double mean = 0;
        for (int64_t t = 0; t < c.S; ++t)
          mean += in.k[static_cast<size_t>((in.cu_k[s] + b * c.S + t) * c.D + d)] / static_cast<double>(c.S);
        ASSERT_NEAR(centroids[row * c.D + d], mean, 1e-6) << "sequence " << s << " block " << b;
      }
  EXPECT_EQ(row, 16);
}

// Long sums in fp32 must not drift: 40000 keys around 1e4.
TEST_P(MobaGateRule, CentroidOfALongBlockIsAccurate) {
  MobaCase c{.id = "long_block", .k_lens = {40001}, .H = 1, .Hk = 1, .D = 5, .S = 40000, .K = 2};
  MobaInputs in = make_inputs(c, 2);
  for (float& x : in.k) x += 1e4f;
  double mean[5] = {};
  for (int64_t t = 0; t < c.S; ++t)
    for (int64_t d = 0; d < 5; ++d) mean[d] += in.k[static_cast<size_t>(t * 5 + d)] / 40000.0;
  std::vector<float> centroids(5);
  kernels::moba_centroids(gate_args(c, in, DType::f32, nullptr, in.k.data()), centroids.data());
  for (int64_t d = 0; d < 5; ++d) EXPECT_NEAR(centroids[static_cast<size_t>(d)], mean[d], 2e-6 * mean[d]);
}

TEST_P(MobaGateRule, CentroidsKeptByTheCallerSelectTheSame) {
  MobaCase c = kPlain;
  c.k_lens = {100, 33};
  c.q_lens = {1, 5};
  const MobaInputs in = make_inputs(c, 2);
  kernels::MobaGateArgs args = gate_args(c, in, DType::f32, in.q.data(), in.k.data());
  std::vector<float> centroids(static_cast<size_t>(kernels::moba_centroid_rows(args.shape, c.S) * c.Hk * c.D));
  kernels::moba_centroids(args, centroids.data());
  args.centroids = centroids.data();
  args.k = nullptr;
  std::vector<int32_t> selected(static_cast<size_t>(6 * c.H * args.slots));
  args.selected = selected.data();
  kernels::moba_gate(args);
  EXPECT_EQ(selected, run_gate<float>(c, in).selected);
}

// Rows of sequence s of a packed run, and the same sequence alone.
TEST_P(MobaGateRule, PackedAloneAndInChunksSelectTheSame) {
  for (const Gate gate : {Gate::mean, Gate::minmax, Gate::window, Gate::sink, Gate::random, Gate::oracle}) {
    MobaCase packed = kPlain;
    packed.gate = gate;
    packed.k_lens = {37, 0, 100, 5};
    const MobaInputs in = make_inputs(packed, 9);
    const OracleSelection all = run_gate<float>(packed, in);
    const auto q_begin = in.q.begin() + 37 * packed.H * packed.D, k_begin = in.k.begin() + 37 * packed.Hk * packed.D;
    for (const int64_t chunk : {100, 63, 1}) {
      MobaCase alone = packed;
      alone.k_lens = {100};
      alone.q_lens = {chunk};
      MobaInputs part{{0, static_cast<int32_t>(chunk)},
                      {0, 100},
                      {q_begin + (100 - chunk) * packed.H * packed.D, q_begin + 100 * packed.H * packed.D},
                      {k_begin, k_begin + 100 * packed.Hk * packed.D},
                      {},
                      {}};
      const OracleSelection got = run_gate<float>(alone, part);
      for (int64_t i = 0; i < chunk; ++i)
        for (int64_t row = 0; row < got.rows; ++row)
          ASSERT_EQ(row_of(got, i, row), row_of(all, 37 + 100 - chunk + i, row))
              << kernels::gate_name(gate) << " chunk " << chunk << " query " << i;
    }
  }
}

TEST_P(MobaGateRule, SameSelectionForAnyNumberOfThreads) {
  MobaCase c = kPlain;
  c.k_lens = {700, 300};
  const MobaInputs in = make_inputs(c, 9);
  const int threads = num_threads();
  set_num_threads(1);
  const OracleSelection want = run_gate<float>(c, in);
  for (const int n : {2, 4}) {
    set_num_threads(n);
    EXPECT_EQ(run_gate<float>(c, in).selected, want.selected) << n << " threads";
  }
  set_num_threads(threads);
}

// ---- gate random

TEST(MobaGateRandom, BlocksAreDistinctPastAndEvenlyChosen) {
  MobaCase c{.id = "random", .k_lens = {4000}, .H = 4, .Hk = 2, .D = 1, .S = 100, .K = 4, .gate = Gate::random};
  const MobaInputs in = make_inputs(c, 1);
  const OracleSelection got = run_gate<float>(c, in);
  std::vector<int64_t> chosen(40, 0);
  for (int64_t token = 0; token < 4000; ++token)
    for (int64_t head = 0; head < 4; ++head) {
      const std::vector<int32_t> row = row_of(got, token, head);
      const int64_t own = token / 100, take = std::min<int64_t>(3, own);
      ASSERT_EQ(row[0], own);
      for (int64_t j = 1; j <= take; ++j) {
        ASSERT_TRUE(row[static_cast<size_t>(j)] >= 0 && row[static_cast<size_t>(j)] < own);
        ASSERT_LT(row[static_cast<size_t>(j)], row[static_cast<size_t>(j - 1)]);  // own first, then descending
        if (token >= 3900) ++chosen[static_cast<size_t>(row[static_cast<size_t>(j)])];
      }
      for (int64_t j = take + 1; j < 4; ++j) ASSERT_EQ(row[static_cast<size_t>(j)], -1);
    }
  // 100 queries x 4 heads x 3 blocks over 39: 30.8 each, standard deviation 5.3.
  for (int64_t b = 0; b < 39; ++b) EXPECT_NEAR(static_cast<double>(chosen[static_cast<size_t>(b)]), 30.8, 5 * 5.3) << "block " << b;
}

TEST(MobaGateRandom, SeedAndHeadMatter) {
  MobaCase c{.id = "random", .k_lens = {4000}, .H = 2, .Hk = 2, .D = 1, .S = 100, .K = 4, .gate = Gate::random};
  const MobaInputs in = make_inputs(c, 1);
  kernels::MobaGateArgs args = gate_args(c, in, DType::f32, in.q.data(), in.k.data());
  std::vector<int32_t> a(4000 * 2 * 4), b(a.size()), other(a.size());
  args.selected = a.data();
  kernels::moba_gate(args);
  args.selected = b.data();
  kernels::moba_gate(args);
  args.selected = other.data();
  args.seed += 1;
  kernels::moba_gate(args);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, other);
  int64_t heads_differ = 0;
  for (size_t token = 3000; token < 4000; ++token) heads_differ += !std::equal(&a[token * 8], &a[token * 8] + 4, &a[token * 8] + 4);
  EXPECT_GT(heads_differ, 900);
}

// ---- wrong arguments

void expect_refused(kernels::MobaGateArgs args, const std::string& name) {
  GuardedBuffer<int32_t> selected(10000);
  if (args.selected == nullptr) args.selected = selected.data();
  for (const Isa isa : kernels::supported_isas()) {
    kernels::set_active_isa(isa);
    try {
      kernels::moba_gate(args);
      ADD_FAILURE() << name << " was accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
    EXPECT_TRUE(selected.untouched()) << name;
  }
}

TEST(MobaGateErrors, NameTheArgument) {
  const MobaInputs in = make_inputs(kPlain, 1);
  const kernels::MobaGateArgs good = gate_args(kPlain, in, DType::f32, in.q.data(), in.k.data());
  auto args = good;
  args.chunk_size = 0;
  expect_refused(args, "chunk_size = 0");
  args = good;
  args.topk = 0;
  expect_refused(args, "topk = 0");
  args = good;
  args.slots = 5;
  expect_refused(args, "slots = 5");
  args = good;
  args.dtype = DType::i32;
  expect_refused(args, "dtype = i32");
  args = good;
  args.q = nullptr;
  expect_refused(args, "q is null");
  args = good;
  args.k = nullptr;
  expect_refused(args, "k is null");
  args = good;
  args.shape.kv_heads = 3;
  expect_refused(args, "heads = 2");
  args = good;
  args.gate = Gate::oracle;
  args.softmax_scale = -1;
  expect_refused(args, "softmax_scale = -1");
  args = good;
  args.stream.device = DeviceType::cuda;
  expect_refused(args, "CUDA");
}

}  // namespace
}  // namespace moba::test
