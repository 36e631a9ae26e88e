// A run of several ranks in small: steps, saves, evaluations; one rank fails at a chosen place in a chosen way.
//   mpirun -n 3 moba-fault-victim LIMIT_SECONDS VICTIM WHERE HOW [BACKEND]
// WHERE: before_start start step collective save evaluation finish none; HOW: kill stop exit memory hang
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "src/distributed/world.h"

namespace {

using namespace moba;

std::string how;

void strike() {
  std::fprintf(stderr, "struck at %.3f\n", std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
  if (how == "kill") raise(SIGKILL);
  if (how == "stop") raise(SIGSTOP);
  if (how == "exit") _exit(0);
  if (how == "memory") throw std::bad_alloc();
  for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));  // hang
}

// The main thread is deep in compute, not in a call that could look around.
void compute(int milliseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
  for (volatile double x = 1; std::chrono::steady_clock::now() < end;) x = x * 1.0000001;
}

void train(World& world, bool victim, const std::string& where) {
  const auto at = [&](int64_t step, const char* phase) {
    world.at(step, phase);
    if (victim && where == phase && step == 5) {
      compute(30);
      strike();
    }
  };
  Communicator& all = world.communicator();
  const Tensor gradients = Tensor::zeros({4 << 20}, DType::f32), loss = Tensor::zeros({1}, DType::f32);
  for (int64_t step = 1; step <= 8; ++step) {
    at(step, "step");
    compute(10);
    const Work first = all.all_reduce(gradients, ReduceOp::sum, "gradients, bucket 0");
    const Work second = all.all_reduce(gradients.rows(0, 1000), ReduceOp::sum, "gradients, bucket 1");
    if (victim && where == "collective" && step == 5) {
      compute(3);
      strike();
    }
    compute(5);
    first.wait();
    second.wait();
    if (step % 5 != 0) continue;
    at(step, "save");
    compute(20);
    all.barrier("checkpoint written").wait();
    at(step, "evaluation");
    compute(20);
    all.all_reduce(loss, ReduceOp::sum, "evaluation loss").wait();
  }
  at(5, "finish");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const Launch launch = read_launch();
  const bool victim = launch.rank == std::atoi(argv[2]);
  const std::string where = argv[3];
  how = argv[4];
  std::unique_ptr<World> world;
  try {
    if (victim && where == "before_start") strike();
    if (victim && where == "start")
      std::thread([] {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        strike();
      }).detach();
    WorldOptions options;
    options.time_limit_seconds = std::atof(argv[1]);
    if (argc > 5) options.backend = argv[5];
    world = World::start(launch, options);
    train(*world, victim, where);
    world->finish();
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    if (world) world->failed(error.what());
    return static_cast<int>(error.code());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: out of memory\n");
    if (world) world->failed("out of memory");
    return 1;
  }
}
