// The watchdog's verdicts, with several watchdogs in one process over loopback.
#include "src/distributed/watchdog.h"

#include <gtest/gtest.h>

namespace moba {
namespace {

struct Star {  // what every rank said, by rank
  struct Rank {
    ActivityBoard board;
    std::mutex mutex;
    std::string message;
    std::unique_ptr<Watchdog> watchdog;
    std::string said() {
      std::lock_guard lock(mutex);
      return message;
    }
  };
  std::vector<std::unique_ptr<Rank>> ranks;
  Connection silent;  // the other end of a rank that never speaks

  // Rank `mute` has a connection but no watchdog.
  explicit Star(int size, double limit, int mute = -1) {
    Listener listener = Listener::open();
    std::vector<Connection> center(1), outer(1);
    for (int r = 1; r < size; ++r) {
      outer.push_back(connect_to(listener.addresses[0], 5));
      center.push_back(listener.accept(5));
      EXPECT_TRUE(outer.back().open() && center.back().open());
    }
    for (int r = 0; r < size; ++r) {
      ranks.push_back(std::make_unique<Rank>());
      Rank& rank = *ranks.back();
      rank.board.at(812, "step");
      WatchdogOptions options{r, {}, limit, "mpirun", [&rank](const std::string& m) {
                                std::lock_guard lock(rank.mutex);
                                rank.message = m;
                              }};
      for (int h = 0; h < size; ++h) options.hosts.push_back("node" + std::to_string(h));
      if (r == mute) {
        silent = std::move(outer[static_cast<size_t>(r)]);
        continue;
      }
      std::vector<Connection> links;
      if (r == 0)
        links = std::move(center);
      else
        links.push_back(std::move(outer[static_cast<size_t>(r)]));
      rank.watchdog = std::make_unique<Watchdog>(std::move(options), rank.board, std::move(links));
    }
  }

  // Until rank r has said something, at most that long.
  std::string wait_for(int r, double seconds) {
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    while (Clock::now() < end && ranks[static_cast<size_t>(r)]->said().empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return ranks[static_cast<size_t>(r)]->said();
  }
};

void settle() { std::this_thread::sleep_for(std::chrono::milliseconds(150)); }

TEST(Watchdog, ProcessThatEnds) {
  Star star(3, 5);
  star.ranks[1]->board.at(812, "save");
  star.ranks[1]->watchdog->poke();
  star.ranks[0]->board.enter("all_reduce", "gradients, bucket 3", "world", 55, {0, 1, 2});
  settle();
  star.ranks[1]->watchdog.reset();
  EXPECT_EQ(
      star.wait_for(0, 2),
      "rank 1 on node1 is lost: its process ended (step 812, save); rank 0 on node0 was in all_reduce #55 'gradients, bucket 3' of step "
      "812. Exit code 6; start the same command again to resume from the last checkpoint.");
  EXPECT_EQ(
      star.wait_for(2, 2),
      "rank 1 on node1 is lost: its process ended (step 812, save); rank 2 on node2 was in step 812, step. Exit code 6; start the same "
      "command again to resume from the last checkpoint.");
}

TEST(Watchdog, LossOfRankZeroIsSeenByAll) {
  Star star(3, 5);
  settle();
  star.ranks[0]->watchdog.reset();
  for (int r : {1, 2}) EXPECT_EQ(star.wait_for(r, 2).find("rank 0 on node0 is lost: its process ended (step 812, step)"), 0u) << r;
}

TEST(Watchdog, GoodbyeIsNoLoss) {
  Star star(3, 0.5);
  for (int r : {1, 0, 2}) {
    star.ranks[static_cast<size_t>(r)]->watchdog->goodbye();
    settle();
    star.ranks[static_cast<size_t>(r)]->watchdog.reset();
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  for (auto& rank : star.ranks) EXPECT_EQ(rank->said(), "");
}

TEST(Watchdog, SilentRank) {
  Star star(3, 0.5, 1);
  for (int r : {0, 2})
    EXPECT_EQ(star.wait_for(r, 3).find("rank 1 on node1 is lost: it has not answered for 0.5 s (stopped, or its host"), 0u);
}

TEST(Watchdog, CollectiveThatSomebodyDidNotEnter) {
  Star star(4, 0.5);
  for (int r : {0, 1, 3}) star.ranks[static_cast<size_t>(r)]->board.enter("barrier", "saved", "world", 9, {0, 1, 2, 3});
  star.ranks[2]->board.at(812, "evaluation");
  for (int r = 0; r < 4; ++r)
    EXPECT_EQ(star.wait_for(r, 3).find("rank 2 on node2 is lost: it did not enter barrier #9 'saved' within 0.5 s (step 812, evaluation)"),
              0u)
        << star.wait_for(r, 0);
}

// The group's own count decides, not the world's.
TEST(Watchdog, CollectiveOfAGroup) {
  Star star(4, 0.5);
  for (int r : {1, 2, 3}) star.ranks[static_cast<size_t>(r)]->board.enter("barrier", "x", "world", 100, {0, 1, 2, 3});
  for (int r : {1, 2, 3}) star.ranks[static_cast<size_t>(r)]->board.leave();
  star.ranks[1]->board.enter("reduce", "y", "world/0:1", 2, {1, 3});
  EXPECT_EQ(star.wait_for(0, 3).find("rank 3 on node3 is lost: it did not enter reduce #2 of group world/0:1 'y' within 0.5 s"), 0u)
      << star.wait_for(0, 0);
}

TEST(Watchdog, FailureOfOneEndsAll) {
  Star star(3, 5);
  star.ranks[2]->watchdog->failed("out of memory");
  star.ranks[2]->watchdog.reset();
  for (int r : {0, 1}) EXPECT_EQ(star.wait_for(r, 3).find("rank 2 on node2 is lost: out of memory (step 812, step)"), 0u);
}

TEST(Watchdog, FailureOfAllIsNoLoss) {
  Star star(3, 5);
  for (int r : {2, 0, 1}) {
    star.ranks[static_cast<size_t>(r)]->watchdog->failed("the loss is not finite");
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  for (auto& rank : star.ranks) rank->watchdog.reset();
  for (auto& rank : star.ranks) EXPECT_EQ(rank->said(), "");
}

TEST(Connection, MessagesOfAnySizeArriveWhole) {
  Listener listener = Listener::open();
  Connection a = connect_to(listener.addresses[0], 5), b = listener.accept(5);
  const std::string large(300000, 'x');
  a.send({{"n", 1}});
  a.send({{"n", 2}, {"text", large}});
  nlohmann::json first, second;
  ASSERT_TRUE(b.wait_for_message(first, 5));
  std::thread writer([&] {
    for (int i = 0; i < 200 && a.has_output(); ++i) {
      a.flush();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  ASSERT_TRUE(b.wait_for_message(second, 5));
  writer.join();
  EXPECT_EQ(first["n"], 1);
  EXPECT_EQ(second["text"], large);
  a.close();
  EXPECT_FALSE(b.wait_for_message(first, 5));
  EXPECT_FALSE(b.open());
}

}  // namespace
}  // namespace moba
