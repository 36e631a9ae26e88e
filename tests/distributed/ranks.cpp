// Every operation of the communicator against the serial model, bit for bit. Runs under mpirun, one process per rank; every rank runs
// every check. MOBA_TEST_BACKEND chooses mpi (default) or nccl.
#include <gtest/gtest.h>

#include <chrono>
#include <limits>
#include <numeric>
#include <thread>

#include "src/distributed/group_communicator.h"
#include "src/distributed/world.h"
#include "tests/distributed/tree_model.h"
#include "tests/support/compare.h"

namespace moba {
namespace {

World* world = nullptr;
Communicator& all() { return world->communicator(); }

std::vector<int> everyone() {
  std::vector<int> members(static_cast<size_t>(all().size()));
  std::iota(members.begin(), members.end(), 0);
  return members;
}

// The switch from whole tensors to halves is at 32 KiB; blocks have 4 MiB, which one type is enough to cross.
const int64_t kSizes[] = {0, 1, 2, 7, 1000, 4096, 8192, 8193, 20011, 1300001};
template <class T>
bool too_long(int64_t n) {
  return n > 200000 && !std::is_same_v<T, float>;
}

template <class T>
void expect_bits(const std::string& name, const Tensor& got, const std::vector<T>& want) {
  ASSERT_EQ(got.numel(), static_cast<int64_t>(want.size())) << name;
  EXPECT_TRUE(test::same_bits(name, got.raw(), want.data(), want.size() * sizeof(T)));
}

template <class T>
Tensor own(int64_t n, int salt) {
  return Tensor::from(test::part<T>(all().rank(), n, salt), {n});
}

template <class T>
class Typed : public ::testing::Test {};
using Types = ::testing::Types<float, bf16, double, int32_t, int64_t>;
TYPED_TEST_SUITE(Typed, Types);

TYPED_TEST(Typed, AllReduce) {
  for (int64_t n : kSizes) {
    for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
      if (too_long<TypeParam>(n) || (n > 100000 && op != ReduceOp::sum)) continue;
      const Tensor x = own<TypeParam>(n, 1);
      all().all_reduce(x, op, "x").wait();
      expect_bits(fmt::format("all_reduce {} op {}", n, static_cast<int>(op)), x, test::tree<TypeParam>(everyone(), n, 1, op));
    }
  }
}

TYPED_TEST(Typed, SmallAndLargeHaveTheSameBits) {
  auto* communicator = dynamic_cast<GroupCommunicator*>(&all());
  if (!communicator) GTEST_SKIP() << "one rank has no other to talk to; mpirun starts this with more";
  for (int64_t n : {1, 5, 1000, 6000}) {
    for (int64_t limit : {int64_t{0}, int64_t{1} << 30}) {
      all().barrier("before").wait();
      communicator->group().set_small_bytes(limit);
      const Tensor x = own<TypeParam>(n, 2), pieces = own<TypeParam>(n * all().size(), 3), mine = Tensor::empty({n}, x.dtype());
      all().all_reduce(x, ReduceOp::sum, "x").wait();
      all().reduce_scatter(pieces, mine, "pieces").wait();
      const Tensor copied = all().rank() == 0 ? own<TypeParam>(n, 4) : Tensor::zeros({n}, x.dtype());
      all().broadcast(copied, 0, "copied").wait();
      expect_bits("all_reduce", x, test::tree<TypeParam>(everyone(), n, 2));
      const auto sum = test::tree<TypeParam>(everyone(), n * all().size(), 3);
      const auto at = sum.begin() + all().rank() * n;
      expect_bits("reduce_scatter", mine, std::vector<TypeParam>(at, at + n));
      expect_bits("broadcast", copied, test::part<TypeParam>(0, n, 4));
    }
    communicator->group().set_small_bytes(32 << 10);
  }
}

TYPED_TEST(Typed, Reduce) {
  for (int64_t n : kSizes) {
    for (int root = 0; root < all().size(); ++root) {
      if (too_long<TypeParam>(n) || (n > 100000 && root > 1)) continue;
      const Tensor x = own<TypeParam>(n, 5 + root);
      all().reduce(x, root, "x").wait();
      if (all().rank() == root) expect_bits(fmt::format("reduce {} to {}", n, root), x, test::tree<TypeParam>(everyone(), n, 5 + root));
    }
  }
}

TYPED_TEST(Typed, ReduceScatterAndAllGather) {
  for (int64_t n : {0, 1, 3, 1000, 5000, 400009}) {
    if (too_long<TypeParam>(n)) continue;
    const int64_t total = n * all().size();
    const Tensor in = own<TypeParam>(total, 6), piece = Tensor::empty({n}, in.dtype()), out = Tensor::empty({total}, in.dtype());
    all().reduce_scatter(in, piece, "in").wait();
    expect_bits("in is left alone", in, test::part<TypeParam>(all().rank(), total, 6));
    const auto sum = test::tree<TypeParam>(everyone(), total, 6);
    const auto at = sum.begin() + all().rank() * n;
    expect_bits(fmt::format("reduce_scatter {}", n), piece, std::vector<TypeParam>(at, at + n));
    all().all_gather(piece, out, "piece").wait();
    expect_bits(fmt::format("all_gather {}", n), out, sum);
    // A piece may be the caller's own place in the result.
    if (n > 0) {
      const Tensor place = out.rows(all().rank() * n, (all().rank() + 1) * n);
      all().all_gather(place, out, "in place").wait();
      expect_bits("all_gather in place", out, sum);
    }
  }
}

TYPED_TEST(Typed, Broadcast) {
  for (int64_t n : kSizes) {
    for (int root = 0; root < all().size(); ++root) {
      if (too_long<TypeParam>(n)) continue;
      const Tensor x = all().rank() == root ? own<TypeParam>(n, 7) : Tensor::from(std::vector<TypeParam>(static_cast<size_t>(n)), {n});
      all().broadcast(x, root, "x").wait();
      expect_bits(fmt::format("broadcast {} of {}", n, root), x, test::part<TypeParam>(root, n, 7));
    }
  }
}

TYPED_TEST(Typed, AllToAll) {
  const int size = all().size(), rank = all().rank();
  for (int64_t n : {0, 1, 100, 40000}) {
    const Tensor in = own<TypeParam>(n * size, 8), out = Tensor::empty({n * size}, in.dtype());
    all().all_to_all(in, out, "in").wait();
    std::vector<TypeParam> want;
    for (int r = 0; r < size; ++r) {
      const auto theirs = test::part<TypeParam>(r, n * size, 8);
      want.insert(want.end(), theirs.begin() + rank * n, theirs.begin() + (rank + 1) * n);
    }
    expect_bits(fmt::format("all_to_all {}", n), out, want);
  }
  // Rank r sends r + 2s elements to s, and none where s is 1.
  const auto count = [](int from, int to) { return to == 1 ? int64_t{0} : int64_t{from} + 2 * to; };
  std::vector<int64_t> send, receive;
  for (int r = 0; r < size; ++r) {
    send.push_back(count(rank, r));
    receive.push_back(count(r, rank));
  }
  const int64_t sent = std::accumulate(send.begin(), send.end(), int64_t{0}),
                received = std::accumulate(receive.begin(), receive.end(), int64_t{0});
  const Tensor in = own<TypeParam>(sent, 9), out = Tensor::empty({received}, in.dtype());
  all().all_to_all_v(in, send, out, receive, "uneven").wait();
  std::vector<TypeParam> want;
  for (int r = 0; r < size; ++r) {
    int64_t before = 0;
    for (int s = 0; s < rank; ++s) before += count(r, s);
    for (int64_t i = 0; i < count(r, rank); ++i) want.push_back(test::value<TypeParam>(r, before + i, 9));
  }
  expect_bits("all_to_all_v", out, want);
}

TYPED_TEST(Typed, SendAndReceive) {
  const int size = all().size(), rank = all().rank();
  if (size == 1) GTEST_SKIP() << "one rank has no other to talk to; mpirun starts this with more";
  for (int64_t n : {0, 1, 1000, 200000}) {
    // Down a chain: works on every backend.
    const Tensor x = rank == 0 ? own<TypeParam>(n, 10) : Tensor::from(std::vector<TypeParam>(static_cast<size_t>(n)), {n});
    if (rank > 0) all().receive(x, rank - 1, "chain").wait();
    if (rank + 1 < size) all().send(x, rank + 1, "chain").wait();
    expect_bits("chain", x, test::part<TypeParam>(0, n, 10));
    if (all().backend() == "nccl") continue;
    // A ring where all send first, with a collective issued in between.
    const Tensor mine = own<TypeParam>(n, 11), theirs = Tensor::empty({n}, mine.dtype());
    const Work sent = all().send(mine, (rank + 1) % size, "ring");
    const Work between = all().barrier("between");
    const Work received = all().receive(theirs, (rank + size - 1) % size, "ring");
    received.wait();
    sent.wait();
    between.wait();
    expect_bits("ring", theirs, test::part<TypeParam>((rank + size - 1) % size, n, 11));
  }
}

TEST(Ranks, NaNReachesAllRanks) {
  for (ReduceOp op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min}) {
    for (int bad = 0; bad < all().size(); ++bad) {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      const Tensor x = Tensor::full({3}, all().rank() == bad ? nan : 1.f, DType::f32);
      all().all_reduce(x, op, "x").wait();
      EXPECT_TRUE(std::isnan(x.item(2))) << static_cast<int>(op) << " " << bad;
    }
  }
}

TEST(Ranks, OperationsRunInTheOrderOfIssue) {
  std::vector<Tensor> tensors;
  std::vector<Work> works;
  for (int i = 0; i < 50; ++i) {
    const int64_t n = i % 3 == 0 ? 20000 : 10 + i;
    tensors.push_back(own<float>(n, 100 + i));
    works.push_back(all().all_reduce(tensors.back(), ReduceOp::sum, "one of many"));
  }
  for (size_t i = works.size(); i-- > 0;) {
    works[i].wait();
    works[i].wait();
    EXPECT_TRUE(works[i].done());
    expect_bits("one of many", tensors[i], test::tree<float>(everyone(), tensors[i].numel(), 100 + static_cast<int>(i)));
  }
}

TEST(Ranks, BarrierHoldsAll) {
  using clock = std::chrono::steady_clock;
  for (int late = 0; late < all().size(); ++late) {
    all().barrier("start").wait();
    const auto begin = clock::now();
    if (all().rank() == late) std::this_thread::sleep_for(std::chrono::milliseconds(60));
    all().barrier("late").wait();
    EXPECT_GE(std::chrono::duration<double>(clock::now() - begin).count(), all().size() > 1 ? 0.03 : 0.0);
  }
}

TEST(Ranks, Split) {
  const int size = all().size(), rank = all().rank();
  // Odd and even ranks, in reverse order.
  const auto half = all().split(rank % 2, -rank);
  std::vector<int> members;
  for (int r = size - 1; r >= 0; --r) {
    if (r % 2 == rank % 2) members.push_back(r);
  }
  ASSERT_EQ(half->size(), static_cast<int>(members.size()));
  ASSERT_EQ(members[static_cast<size_t>(half->rank())], rank);
  // A group inside the group: pairs. Both work side by side with the world.
  const auto pair = half->split(half->rank() / 2, half->rank());
  for (int64_t n : {9, 30000}) {
    const Tensor a = own<float>(n, 20), b = own<float>(n, 21), c = own<float>(n, 22);
    const Work first = half->all_reduce(a, ReduceOp::sum, "half"), second = all().all_reduce(b, ReduceOp::sum, "all"),
               third = pair->all_reduce(c, ReduceOp::sum, "pair");
    third.wait();
    second.wait();
    first.wait();
    expect_bits("half", a, test::tree<float>(members, n, 20));
    expect_bits("all", b, test::tree<float>(everyone(), n, 21));
    const auto at = static_cast<size_t>(half->rank() / 2 * 2);
    expect_bits("pair", c,
                test::tree<float>({members.begin() + static_cast<ptrdiff_t>(at),
                                   members.begin() + static_cast<ptrdiff_t>(std::min(at + 2, members.size()))},
                                  n, 22));
  }
  EXPECT_EQ(all().split(0, 0)->size(), size);
}

// Messages above 1 GiB are cut. Needs 2.2 GB per rank: MOBA_TEST_HUGE=1.
TEST(Ranks, BeyondTwoGiB) {
  if (!std::getenv("MOBA_TEST_HUGE")) GTEST_SKIP() << "needs 2.2 GB of memory in each rank: set MOBA_TEST_HUGE=1 to run it";
  const int64_t n = 1100000007;
  const Tensor x = Tensor::full({n}, 0, DType::bf16);
  for (int64_t i = 0; i < n; i += 999) x.data<bf16>()[i] = all().rank() == 0 ? test::value<bf16>(0, i, 30) : to_bf16(0);
  all().broadcast(x, 0, "huge").wait();
  int64_t wrong = 0;
  for (int64_t i = 0; i < n; i += 999) wrong += x.data<bf16>()[i].bits != test::value<bf16>(0, i, 30).bits;
  EXPECT_EQ(wrong, 0);
  all().all_reduce(x, ReduceOp::sum, "huge").wait();
  if (all().size() == 2) {
    for (int64_t i = 0; i < n; i += 999) wrong += to_float(x.data<bf16>()[i]) != 2 * to_float(test::value<bf16>(0, i, 30));
    EXPECT_EQ(wrong, 0);
  }
}

TEST(Ranks, Strings) {
  const auto name = [](int r) { return std::string(static_cast<size_t>(r * 5), static_cast<char>('a' + r)); };
  const std::vector<std::string> got = all().all_gather_strings(name(all().rank()), "names");
  ASSERT_EQ(got.size(), static_cast<size_t>(all().size()));
  for (int r = 0; r < all().size(); ++r) EXPECT_EQ(got[static_cast<size_t>(r)], name(r));
}

TEST(Ranks, MistakesAreErrors) {
  const Tensor three = Tensor::zeros({3}, DType::f32), bytes = Tensor::zeros({3 * all().size()}, DType::f64);
  EXPECT_THROW(all().all_gather(three, bytes, "mixed").wait(), Error);
  EXPECT_THROW(all().broadcast(three, all().size(), "nobody").wait(), Error);
  EXPECT_THROW(all().all_reduce(Tensor(), ReduceOp::sum, "nothing").wait(), Error);
  EXPECT_THROW(all().send(three, all().rank(), "to itself").wait(), Error);
  const std::vector<int64_t> none;
  EXPECT_THROW(all().all_to_all_v(three, none, three, none, "no counts").wait(), Error);
}

// Rank 0 prints as usual, the others only what fails.
class Failures : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (result.failed())
      std::fprintf(stderr, "rank %d: %s:%d: %s\n", world->rank(), result.file_name() ? result.file_name() : "", result.line_number(),
                   result.message());
  }
};

}  // namespace
}  // namespace moba

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  try {
    const char* backend = std::getenv("MOBA_TEST_BACKEND");
    moba::WorldOptions options;
    options.time_limit_seconds = 60;
    if (backend) options.backend = backend;
    const auto world = moba::World::start(moba::read_launch(), options);
    moba::world = world.get();
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    if (world->rank() > 0) {
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new moba::Failures);
    }
    const int result = RUN_ALL_TESTS();
    world->finish();
    return result;
  } catch (const moba::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
