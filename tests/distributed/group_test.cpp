// The tree, the collectives and the communication thread, over threads of one process. ranks.cpp does it over MPI and NCCL.
#include <gtest/gtest.h>

#include <atomic>

#include "tests/distributed/local_ranks.h"
#include "tests/distributed/tree_model.h"
#include "tests/support/compare.h"

namespace moba {
namespace {

using test::on_ranks;

std::vector<int> ranks(int size) {
  std::vector<int> v(static_cast<size_t>(size));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

class Sizes : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Group, Sizes, ::testing::Values(1, 2, 3, 4, 5, 6, 7, 8, 12, 16));

TEST_P(Sizes, SumsAreTheTree) {
  const int size = GetParam();
  for (int64_t n : {1, 3, 37, 9001}) {
    const std::vector<float> want = test::tree<float>(ranks(size), n, 1), wide = test::tree<float>(ranks(size), n * size, 2);
    for (int64_t small : {int64_t{0}, int64_t{1} << 30}) {
      on_ranks(size, [&](GroupCommunicator& all, Service&) {
        all.group().set_small_bytes(small);
        const Tensor x = Tensor::from(test::part<float>(all.rank(), n, 1), {n});
        all.all_reduce(x, ReduceOp::sum, "x").wait();
        EXPECT_TRUE(test::same_bits("all_reduce", x.raw(), want.data(), static_cast<size_t>(n) * 4));
        const Tensor in = Tensor::from(test::part<float>(all.rank(), n * size, 2), {n * size}), out = Tensor::empty({n}, DType::f32);
        all.reduce_scatter(in, out, "in").wait();
        EXPECT_TRUE(test::same_bits("reduce_scatter", out.raw(), wide.data() + all.rank() * n, static_cast<size_t>(n) * 4));
        all.all_gather(out, in, "out").wait();
        EXPECT_TRUE(test::same_bits("all_gather", in.raw(), wide.data(), wide.size() * 4));
        for (int root : {0, size - 1}) {
          const Tensor y = Tensor::from(test::part<float>(all.rank(), n, 1), {n});
          all.reduce(y, root, "y").wait();
          if (all.rank() == root) {
            EXPECT_TRUE(test::same_bits("reduce", y.raw(), want.data(), static_cast<size_t>(n) * 4));
          }
          all.broadcast(y, root, "y").wait();
          EXPECT_TRUE(test::same_bits("broadcast", y.raw(), want.data(), static_cast<size_t>(n) * 4));
        }
      });
    }
  }
}

// What the tree is for: P ranks of one part each have the bits of P/2 ranks that add two neighbouring parts first.
TEST(Tree, SubtreesOfFewerRanks) {
  const int64_t n = 20000;
  std::vector<float> eight(n);
  on_ranks(8, [&](GroupCommunicator& all, Service&) {
    const Tensor x = Tensor::from(test::part<float>(all.rank(), n, 3), {n});
    all.all_reduce(x, ReduceOp::sum, "x").wait();
    if (all.rank() == 5) eight = x.to_vector<float>();
  });
  for (int size : {1, 2, 4}) {
    on_ranks(size, [&](GroupCommunicator& all, Service&) {
      std::vector<int> mine(static_cast<size_t>(8 / size));
      std::iota(mine.begin(), mine.end(), all.rank() * 8 / size);
      const Tensor x = Tensor::from(test::tree<float>(mine, n, 3), {n});
      all.all_reduce(x, ReduceOp::sum, "x").wait();
      EXPECT_TRUE(test::same_bits("fewer ranks", x.raw(), eight.data(), eight.size() * 4)) << size;
    });
  }
}

TEST(CommunicationThread, AbsentRankIsAnErrorAfterTheLimit) {
  std::atomic<int> named = 0;
  on_ranks(
      3,
      [&](GroupCommunicator& all, Service&) {
        if (all.rank() == 1) return;
        const Tensor x = Tensor::zeros({10}, DType::f32);
        const Work first = all.all_reduce(x, ReduceOp::sum, "gradients, bucket 3"), second = all.barrier("after");
        try {
          first.wait();
          ADD_FAILURE() << "all_reduce ended without rank 1";
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), ExitCode::rank_lost);
          if (std::string(e.what()).find("all_reduce #1 'gradients, bucket 3'") != std::string::npos) ++named;
        }
        try {  // nothing runs behind a failure
          second.wait();
          ADD_FAILURE() << "barrier ended without rank 1";
        } catch (const Error& e) {
          EXPECT_NE(std::string(e.what()).find("all_reduce #1"), std::string::npos) << e.what();
        }
        EXPECT_THROW(all.barrier("later").wait(), Error);
      },
      0.2, 0.1);
  EXPECT_EQ(named, 2);
}

TEST(CommunicationThread, AbandonEndsAWait) {
  on_ranks(2, [&](GroupCommunicator& all, Service& service) {
    if (all.rank() == 1) return;
    const Work work = all.barrier("alone");
    std::thread other([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      service.abandon();
    });
    EXPECT_THROW(work.wait(), Error);
    EXPECT_THROW(all.barrier("after the end").wait(), Error);
    other.join();
  });
}

TEST(CommunicationThread, BoardSaysWhatRuns) {
  on_ranks(2, [&](GroupCommunicator& all, Service& service) {
    if (all.rank() == 1) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    service.board().at(7, "save");
    all.barrier("a").wait();
    const Work work = all.barrier("b");
    if (all.rank() == 0) {
      Activity a;
      for (int i = 0; i < 1000 && !(a = service.board().read()).running; ++i) std::this_thread::sleep_for(std::chrono::microseconds(50));
      EXPECT_EQ(a.place(), "step 7, save");
      EXPECT_EQ(a.collective().substr(0, 9), "barrier #");
    }
    work.wait();
    EXPECT_FALSE(service.board().read().running);
    EXPECT_EQ(service.board().read().entered.at("world"), 2);
  });
}

TEST(Split, ManyGroupsSideBySide) {
  on_ranks(8, [&](GroupCommunicator& all, Service&) {
    std::vector<std::unique_ptr<Communicator>> groups;
    for (int width : {2, 4, 3}) groups.push_back(all.split(all.rank() / width, all.rank()));
    std::vector<Tensor> tensors;
    std::vector<Work> works;
    for (size_t i = 0; i < 30; ++i) {
      tensors.push_back(Tensor::from(std::vector<int64_t>(50, 1), {50}));
      works.push_back(groups[i % 3]->all_reduce(tensors[i], ReduceOp::sum, "many"));
    }
    for (size_t i = 0; i < 30; ++i) {
      works[i].wait();
      EXPECT_EQ(tensors[i].item(49), groups[i % 3]->size());
    }
    EXPECT_EQ(groups[2]->size(), all.rank() < 6 ? 3 : 2);
  });
}

}  // namespace
}  // namespace moba
