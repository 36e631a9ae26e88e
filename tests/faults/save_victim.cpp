// moba-save-victim RUN_DIR STEP SEED KEEP_LAST: saves one small checkpoint; killed on the way by save_kill_test.
#include <cstdio>
#include <cstdlib>

#include "tests/faults/victim_model.h"

int main(int argc, char** argv) {
  if (argc != 5) return static_cast<int>(moba::ExitCode::usage);
  try {
    moba::test::VictimModel(std::atol(argv[3])).save(argv[1], std::atol(argv[2]), std::atoi(argv[4]));
  } catch (const moba::Error& error) {
    std::fprintf(stderr, "moba-save-victim: %s\n", error.what());
    return static_cast<int>(error.code());
  }
  return 0;
}
