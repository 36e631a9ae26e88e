// World where no other rank exists, and where MPI is missing. Several ranks: ranks.cpp, faults.py.
#include "src/distributed/world.h"

#include <gtest/gtest.h>

#include "src/distributed/mpi.h"

namespace moba {
namespace {

TEST(World, OneRankNeedsNobody) {
  const auto world = World::start(Launch{}, {});
  EXPECT_EQ(world->size(), 1);
  EXPECT_EQ(world->communicator().backend(), "self");
  EXPECT_FALSE(world->host(0).empty());
  world->at(1, "step");
  const Tensor x = Tensor::from<float>({1, 2, 3}, {3}), y = Tensor::empty({3}, DType::f32);
  world->communicator().all_reduce(x, ReduceOp::sum, "x").wait();
  world->communicator().all_gather(x, y, "x").wait();
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{1, 2, 3}));
  EXPECT_EQ(world->communicator().all_gather_strings("me", "names"), std::vector<std::string>{"me"});
  EXPECT_EQ(world->communicator().split(0, 0)->size(), 1);
  EXPECT_THROW(world->communicator().send(x, 1, "nobody"), Error);
  world->failed("nothing to tell");
  world->finish();
}

TEST(World, WrongOptions) {
  WorldOptions options;
  options.time_limit_seconds = 0;
  EXPECT_THROW(World::start(Launch{}, options), Error);
  options = {};
  options.backend = "gloo";
  EXPECT_THROW(World::start(Launch{}, options), Error);
}

TEST(World, WithoutMpiSeveralRanksAreRefused) {
  if (!mpi_missing()) GTEST_SKIP() << "this build has MPI";
  try {
    World::start(Launch{1, 4, 1, 4, "mpirun"}, {});
    ADD_FAILURE() << "started";
  } catch (const Error& e) {
    EXPECT_EQ(std::string(e.what()).find("mpirun started this program as rank 1 of 4, but this build has no MPI: install"), 0u) << e.what();
  }
}

}  // namespace
}  // namespace moba
