// What a run prints: one line per logged step; on a terminal also a live bar. Everything goes to train.log too.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>

namespace moba {

struct StepLine {
  int64_t step = 0, total_steps = 0;
  double loss = 0, grad_norm = 0, learning_rate = 0;
  double step_ms = 0, tokens_per_sec = 0, mfu = 0;  // mfu as a share
  int64_t memory_bytes = 0, tokens = 0;
  double eta_seconds = 0;
};

// step 00010/01000 | loss 5.1234 | grad_norm 1.23 | lr 3.00e-04 | 812 ms | 12,345 tok/s | mfu 34.5% | mem 1.2 GiB | tokens 5.2M | eta 3m12s
std::string format_step(const StepLine& line);
std::string format_duration(double seconds);  // 45s, 3m12s, 2h05m, 3d04h
std::string format_count(double n);           // 950, 5.2M, 1.3B
std::string format_thousands(int64_t n);      // 12,345
std::string format_gib(double bytes);         // 1.2 GiB

class Console {
 public:
  explicit Console(bool quiet = false);  // quiet: of a rank that leaves printing to rank 0
  ~Console();
  Console(const Console&) = delete;
  void open_log(const std::string& path);                // appends from now on; Error(io)
  void say(const std::string& text);                     // a line of its own, on stdout and in the log
  void step(const StepLine& line, bool print);           // print: a lasting line; else only the bar moves
  void progress(const std::string& what, double share);  // bar of an evaluation; nothing where there is no terminal

 private:
  void draw(const std::string& text);
  void clear();
  bool quiet_, terminal_, drawn_ = false;
  std::FILE* log_ = nullptr;
};

}  // namespace moba
