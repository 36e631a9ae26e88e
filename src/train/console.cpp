#include "src/train/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>

#include "kernels/common/check.h"

namespace moba {
namespace {

constexpr int kBarWidth = 24;

std::string timestamp() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
  return text;
}

std::string bar(double share) {
  const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * kBarWidth);
  return "[" + std::string(static_cast<size_t>(filled), '=') + std::string(static_cast<size_t>(kBarWidth - filled), ' ') + "]";
}

size_t terminal_columns() {
  winsize size{};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  const auto s = static_cast<int64_t>(std::llround(std::max(seconds, 0.0)));
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
  constexpr int64_t kYear = 365 * 86400;
  if (s >= 2 * kYear) return fmt::format("{} years", format_thousands(s / kYear));
  return fmt::format("{}d{:02}h", s / 86400, s / 3600 % 24);
}

std::string format_count(double n) {
  if (n >= 1e12) return fmt::format("{:.1f}T", n / 1e12);
  if (n >= 1e9) return fmt::format("{:.1f}B", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.1f}M", n / 1e6);
  if (n >= 1e3) return fmt::format("{:.1f}K", n / 1e3);
  return fmt::format("{:.0f}", n);
}

std::string format_thousands(int64_t n) {
  std::string digits = std::to_string(n);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > (n < 0 ? 1 : 0); i -= 3) digits.insert(static_cast<size_t>(i), ",");
  return digits;
}

std::string format_gib(double bytes) { return fmt::format("{:.1f} GiB", bytes / 1073741824.0); }

std::string format_step(const StepLine& l) {
  return fmt::format(
      "step {:05}/{:05} | loss {:.4f} | grad_norm {:.2f} | lr {:.2e} | {:.0f} ms | {} tok/s | mfu {:.1f}% | mem {} | tokens {} | eta {}",
      l.step, l.total_steps, l.loss, l.grad_norm, l.learning_rate, l.step_ms, format_thousands(static_cast<int64_t>(l.tokens_per_sec)),
      100 * l.mfu, format_gib(static_cast<double>(l.memory_bytes)), format_count(static_cast<double>(l.tokens)),
      format_duration(l.eta_seconds));
}

Console::Console(bool quiet) : quiet_(quiet), terminal_(!quiet && ::isatty(STDOUT_FILENO) == 1) {}

Console::~Console() {
  clear();
  if (log_) std::fclose(log_);
}

void Console::open_log(const std::string& path) {
  log_ = std::fopen(path.c_str(), "ae");
  if (!log_) throw Error(fmt::format("cannot open {}: {}", path, std::strerror(errno)), ExitCode::io);
}

void Console::say(const std::string& text) {
  if (quiet_) return;
  clear();
  std::printf("%s\n", text.c_str());
  std::fflush(stdout);
  if (!log_) return;
  std::fprintf(log_, "%s %s\n", timestamp().c_str(), text.c_str());
  std::fflush(log_);
}

void Console::step(const StepLine& line, bool print) {
  if (print) say(format_step(line));
  if (!terminal_) return;
  const double share = line.total_steps > 0 ? static_cast<double>(line.step) / static_cast<double>(line.total_steps) : 0;
  draw(fmt::format("{} {:3.0f}% step {}/{} loss {:.4f} {} tok/s eta {}", bar(share), 100 * share, line.step, line.total_steps, line.loss,
                   format_thousands(static_cast<int64_t>(line.tokens_per_sec)), format_duration(line.eta_seconds)));
}

void Console::progress(const std::string& what, double share) {
  if (terminal_) draw(fmt::format("{} {:3.0f}% {}", bar(share), 100 * share, what));
}

void Console::draw(const std::string& text) {
  std::printf("\r\033[K%s", text.substr(0, terminal_columns() - 1).c_str());
  std::fflush(stdout);
  drawn_ = true;
}

void Console::clear() {
  if (drawn_) std::printf("\r\033[K");
  drawn_ = false;
}

}  // namespace moba
