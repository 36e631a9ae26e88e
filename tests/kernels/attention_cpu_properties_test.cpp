// What holds bit for bit in the fast CPU attention, for every variant of this machine and the emulated bf16 pairs: threads,
// packing, chunked prefill, the past under a changing or poisoned future; and that the workspace is what was announced.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <thread>

#include "kernels/common/threads.h"
#include "kernels/moba_attention/attention_cpu.h"
#include "kernels/moba_attention/attention_cpu_variant.h"
#include "tests/support/moba_run.h"

namespace {
size_t last_aligned_bytes = 0;  // of the newest aligned allocation: attention's workspace
}

extern "C" void* aligned_alloc(size_t alignment, size_t bytes) {
  last_aligned_bytes = bytes;
  void* p = nullptr;
  return posix_memalign(&p, alignment, bytes) == 0 ? p : nullptr;
}

namespace moba::test {
namespace {

using kernels::AttentionType;
using kernels::Isa;
using kernels::attention_cpu::KernelTable;

struct Pairs : kernels::attention_cpu::PairGeometry<64, 4> {};

// A variant: one of the machine's, or the emulated pairs (bf16 only).
struct Variant {
  std::string name;
  const KernelTable* f32 = nullptr;
  const KernelTable* bf16 = nullptr;
};

std::vector<Variant> variants() {
  using namespace kernels::attention_cpu;
  std::vector<Variant> all;
  for (const Isa isa : kernels::supported_isas()) {
    if (isa == Isa::sse) all.push_back({"sse", &table_sse(DType::f32), &table_sse(DType::bf16)});
    if (isa == Isa::avx2) all.push_back({"avx2", &table_avx2(DType::f32), &table_avx2(DType::bf16)});
    if (isa == Isa::avx512) all.push_back({"avx512", &table_avx512(DType::f32), &table_avx512(DType::bf16)});
    if (isa == Isa::avx512_bf16) all.push_back({"avx512_bf16", &table_avx512_bf16(DType::f32), &table_avx512_bf16(DType::bf16)});
  }
  all.push_back({"emulated_pairs", nullptr, &kVariant<Pairs, bf16>});
  return all;
}

// Shapes where borders fall inside panels, tiles and pairs.
std::vector<MobaCase> shapes() {
  return {
      {.id = "full", .k_lens = {530}, .H = 4, .Hk = 2, .D = 40, .type = AttentionType::full},
      {.id = "window", .k_lens = {530}, .H = 2, .Hk = 2, .D = 24, .type = AttentionType::window, .window = 37},
      {.id = "wide_window", .k_lens = {530}, .H = 2, .Hk = 1, .D = 24, .type = AttentionType::window, .window = 301},
      {.id = "moba", .k_lens = {530}, .H = 4, .Hk = 2, .D = 40, .S = 64, .K = 4},
      {.id = "moba_odd_blocks", .k_lens = {531}, .H = 4, .Hk = 1, .D = 33, .S = 51, .K = 3},
      {.id = "moba_per_group", .k_lens = {530}, .H = 4, .Hk = 2, .D = 32, .S = 96, .K = 3, .select = kernels::Select::per_group},
  };
}

OracleSelection select(const MobaCase& c, const MobaInputs& in) {
  return c.type == AttentionType::moba ? oracle_select(c, in) : OracleSelection{};
}

template <class E>
void run_both(AttentionRun<E>& run, const KernelTable& table) {
  kernels::attention_forward_cpu(run.args().forward, table);
  kernels::attention_backward_cpu(run.args(), table);
}

// Bits of rows [from, from + count) of a buffer whose rows have `width` elements.
template <class Buffer>
::testing::AssertionResult same_rows(const char* name, const Buffer& got, int64_t got_row, const Buffer& want, int64_t want_row,
                                     int64_t count, int64_t width) {
  return same_bits(name, got.data() + got_row * width, want.data() + want_row * width,
                   static_cast<size_t>(count * width) * sizeof(*want.data()));
}

class ThreadsGuard {
 public:
  ~ThreadsGuard() { set_num_threads(before_); }

 private:
  int before_ = num_threads();
};

// Calls test<E>(case, table) for every shape, variant and dtype.
template <class Test>
void for_all(Test&& test) {
  for (const MobaCase& c : shapes()) {
    for (const Variant& v : variants()) {
      SCOPED_TRACE(c.id + " " + v.name);
      if (v.f32) test(c, *v.f32, float{});
      test(c, *v.bf16, bf16{});
    }
  }
}

TEST(AttentionCpuProperties, BitsDoNotDependOnThreads) {
  const ThreadsGuard guard;
  for_all([](const MobaCase& c, const KernelTable& table, auto element) {
    using E = decltype(element);
    const MobaInputs in = as_read<E>(make_inputs(c, 21));
    const OracleSelection selection = select(c, in);
    set_num_threads(1);
    AttentionRun<E> one(c, in, selection);
    run_both(one, table);
    for (const int threads : {3}) {
      set_num_threads(threads);
      AttentionRun<E> many(c, in, selection);
      run_both(many, table);
      EXPECT_TRUE(same_rows("out", many.out, 0, one.out, 0, in.tokens_q(), c.H * c.D));
      EXPECT_TRUE(same_rows("lse", many.lse, 0, one.lse, 0, in.tokens_q(), c.H));
      EXPECT_TRUE(same_rows("dq", many.dq, 0, one.dq, 0, in.tokens_q(), c.H * c.D));
      EXPECT_TRUE(same_rows("dk", many.dk, 0, one.dk, 0, in.tokens_k(), c.Hk * c.D));
      EXPECT_TRUE(same_rows("dv", many.dv, 0, one.dv, 0, in.tokens_k(), c.Hk * c.D));
    }
  });
}

TEST(AttentionCpuProperties, BitsDoNotDependOnPacking) {
  for_all([](MobaCase c, const KernelTable& table, auto element) {
    using E = decltype(element);
    const int64_t length = c.k_lens[0], before = 83, after = 130;
    const MobaInputs alone_in = as_read<E>(make_inputs(c, 22));
    const OracleSelection alone_selection = select(c, alone_in);
    AttentionRun<E> alone(c, alone_in, alone_selection);
    run_both(alone, table);
    c.k_lens = {before, length, after};
    MobaInputs in = as_read<E>(make_inputs(c, 23));
    std::copy(alone_in.q.begin(), alone_in.q.end(), in.q.begin() + before * c.H * c.D);
    std::copy(alone_in.dout.begin(), alone_in.dout.end(), in.dout.begin() + before * c.H * c.D);
    std::copy(alone_in.k.begin(), alone_in.k.end(), in.k.begin() + before * c.Hk * c.D);
    std::copy(alone_in.v.begin(), alone_in.v.end(), in.v.begin() + before * c.Hk * c.D);
    const OracleSelection selection = select(c, in);
    AttentionRun<E> packed(c, in, selection);
    run_both(packed, table);
    EXPECT_TRUE(same_rows("out", packed.out, before, alone.out, 0, length, c.H * c.D));
    EXPECT_TRUE(same_rows("lse", packed.lse, before, alone.lse, 0, length, c.H));
    EXPECT_TRUE(same_rows("dq", packed.dq, before, alone.dq, 0, length, c.H * c.D));
    EXPECT_TRUE(same_rows("dk", packed.dk, before, alone.dk, 0, length, c.Hk * c.D));
    EXPECT_TRUE(same_rows("dv", packed.dv, before, alone.dv, 0, length, c.Hk * c.D));
  });
}

TEST(AttentionCpuProperties, ChunkedPrefillHasTheBitsOfOneShot) {
  for_all([](MobaCase c, const KernelTable& table, auto element) {
    using E = decltype(element);
    const int64_t length = c.k_lens[0];
    const MobaInputs in = as_read<E>(make_inputs(c, 24));
    const OracleSelection selection = select(c, in);
    AttentionRun<E> whole(c, in, selection);
    kernels::attention_forward_cpu(whole.args().forward, table);
    for (int64_t begin = 0, end = 0; begin < length; begin = end) {
      end = std::min(length, begin + 97 + begin % 50);
      kernels::AttentionArgs args = whole.args().forward;
      const int32_t cu_q[] = {0, static_cast<int32_t>(end - begin)}, cu_k[] = {0, static_cast<int32_t>(end)};
      GuardedBuffer<E> out((end - begin) * c.H * c.D);
      GuardedBuffer<float> lse((end - begin) * c.H);
      args.shape.cu_seqlens_q = cu_q;
      args.shape.cu_seqlens_k = cu_k;
      args.shape.tokens_q = end - begin;
      args.shape.tokens_k = end;
      args.q = static_cast<const E*>(args.q) + begin * c.H * c.D;
      args.selected = args.selected ? args.selected + begin * selection.rows * selection.slots : nullptr;
      args.out = out.data();
      args.lse = lse.data();
      kernels::attention_forward_cpu(args, table);
      EXPECT_TRUE(same_rows("out", out, 0, whole.out, begin, end - begin, c.H * c.D));
      EXPECT_TRUE(same_rows("lse", lse, 0, whole.lse, begin, end - begin, c.H));
      EXPECT_TRUE(out.guards_intact() && lse.guards_intact());
    }
  });
}

// Token t and all after it change, t to NaN or Inf: outputs and dq before t keep their bits.
TEST(AttentionCpuProperties, PoisonedFutureLeavesThePastAlone) {
  for_all([](const MobaCase& c, const KernelTable& table, auto element) {
    using E = decltype(element);
    const MobaInputs in = as_read<E>(make_inputs(c, 25));
    const OracleSelection selection = select(c, in);
    AttentionRun<E> clean(c, in, selection);
    run_both(clean, table);
    for (const auto& [t, poison] :
         {std::pair{130, std::numeric_limits<float>::quiet_NaN()}, {391, std::numeric_limits<float>::infinity()}}) {
      MobaInputs bad = in;
      for (int64_t i = t * c.H * c.D; i < std::ssize(bad.q); ++i) bad.q[i] = -bad.q[i], bad.dout[i] = bad.dout[i] + 1;
      for (int64_t i = t * c.Hk * c.D; i < std::ssize(bad.k); ++i) bad.k[i] = -bad.k[i], bad.v[i] = bad.v[i] * 2;
      for (auto* x : {&bad.k, &bad.v})
        for (int64_t i = 0; i < c.Hk * c.D; i += 3) (*x)[t * c.Hk * c.D + i] = poison;
      bad.q[t * c.H * c.D] = poison;
      AttentionRun<E> run(c, bad, selection);  // the selection of the past is that of the clean run; the future's does not matter
      run_both(run, table);
      EXPECT_TRUE(same_rows("out", run.out, 0, clean.out, 0, t, c.H * c.D)) << "t " << t;
      EXPECT_TRUE(same_rows("lse", run.lse, 0, clean.lse, 0, t, c.H)) << "t " << t;
      EXPECT_TRUE(same_rows("dq", run.dq, 0, clean.dq, 0, t, c.H * c.D)) << "t " << t;
      EXPECT_TRUE(std::isnan(to_float(run.out.data()[t * c.H * c.D]))) << "the poisoned token must show it";
    }
  });
}

// A NaN in dout of token t reaches dk and dv of the keys t reads and no others.
TEST(AttentionCpuProperties, PoisonedGradientStaysAtKeysThatWereRead) {
  for_all([](const MobaCase& c, const KernelTable& table, auto element) {
    using E = decltype(element);
    const int64_t t = 391, length = c.k_lens[0];
    MobaInputs in = as_read<E>(make_inputs(c, 26));
    const OracleSelection selection = select(c, in);
    for (int64_t i = 0; i < c.H * c.D; ++i) in.dout[t * c.H * c.D + i] = std::numeric_limits<float>::quiet_NaN();
    AttentionRun<E> run(c, in, selection);
    run_both(run, table);
    auto finite = [&](int64_t key) {
      bool all = true;
      for (int64_t i = key * c.Hk * c.D; i < (key + 1) * c.Hk * c.D; ++i)
        all = all && std::isfinite(to_float(run.dk.data()[i])) && std::isfinite(to_float(run.dv.data()[i]));
      return all;
    };
    EXPECT_FALSE(finite(t));
    for (int64_t key = t + 1; key < length; ++key) ASSERT_TRUE(finite(key)) << "key " << key << " is later than token " << t;
    const int64_t forgotten = c.type == AttentionType::window ? t - c.window + 1 : 0;
    for (int64_t key = 0; key < forgotten; ++key) ASSERT_TRUE(finite(key)) << "key " << key << " is outside the window of token " << t;
  });
}

TEST(AttentionCpuProperties, WorkspaceIsWhatWasAnnouncedAndLinear) {
  const Isa before = kernels::active_isa();
  for (const Isa isa : kernels::supported_isas()) {
    if (isa == Isa::reference) continue;
    kernels::set_active_isa(isa);
    for (MobaCase c : shapes()) {
      SCOPED_TRACE(c.id);
      for (const bool backward : {false, true}) {
        const MobaInputs in = make_inputs(c, 27);
        const OracleSelection selection = select(c, in);
        AttentionRun<float> run(c, in, selection);
        std::thread([&] { run.forward(); }).join();  // small workspaces stay with their thread
        if (backward) std::thread([&] { run.backward(); }).join();
        EXPECT_EQ(static_cast<int64_t>(last_aligned_bytes), kernels::attention_workspace_bytes(run.args().forward, backward));
        kernels::AttentionArgs args = run.args().forward;  // sizes only from here on
        auto bytes = [&](int32_t tokens) {
          const int32_t cu[] = {0, tokens};
          args.shape.cu_seqlens_q = args.shape.cu_seqlens_k = cu;
          args.shape.tokens_q = args.shape.tokens_k = tokens;
          return kernels::attention_workspace_bytes(args, backward);
        };
        EXPECT_LE(bytes(1 << 21), 2.05 * static_cast<double>(bytes(1 << 20)));
      }
    }
  }
  kernels::set_active_isa(before);
}

}  // namespace
}  // namespace moba::test
