// moba-bench: how fast this machine runs the kernels. Each subcommand registers itself (kernels/*/*_bench.cpp).
#include <cstdio>
#include <cstring>
#include <string>

#include "kernels/common/bench.h"
#include "kernels/common/check.h"
#include "tools/common/program.h"

namespace {

int usage(std::FILE* to) {
  std::fprintf(to, "usage: moba-bench SUBCOMMAND [options]; moba-bench SUBCOMMAND --help lists the options\n");
  for (const moba::BenchCommand& command : moba::bench_commands())
    std::fprintf(to, "  %-10s %s\n", command.name.c_str(), command.help.c_str());
  return to == stdout ? 0 : static_cast<int>(moba::ExitCode::usage);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return usage(stderr);
  if (!std::strcmp(argv[1], "--help") || !std::strcmp(argv[1], "-h")) return usage(stdout);
  for (const moba::BenchCommand& command : moba::bench_commands()) {
    if (command.name != argv[1]) continue;
    return moba::run_program("moba-bench " + command.name + ": ", [&] { return command.main(argc - 1, argv + 1); });
  }
  std::fprintf(stderr, "moba-bench: unknown subcommand %s\n", argv[1]);
  return usage(stderr);
}
