#include "src/sweep/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "src/train/console.h"

namespace moba::sweep {
namespace {

constexpr std::chrono::milliseconds kRedraw{1000}, kPlainLine{60000};

const char* stage_name(Stage stage) {
  switch (stage) {
    case Stage::waiting: return "waiting";
    case Stage::running: return "running";
    case Stage::finished: return "done";
    case Stage::failed: return "failed";
    case Stage::stopped: return "stopped";
    case Stage::not_asked: return "not asked for";
  }
  return "";
}

std::string run_line(const ArmRun& run, const RunView& view, size_t width) {
  std::string out = fmt::format("{:<{}}  {:<8}", run.name, width, stage_name(view.stage));
  const RunStatus& s = view.status;
  if (s.step > 0)
    out += fmt::format(" {:>7}/{:<7} loss {:7.4f}  {:>8} tok/s", s.step, s.total_steps, s.loss,
                       format_thousands(static_cast<int64_t>(s.tokens_per_sec)));
  if (!view.why.empty()) out += "  " + view.why;
  return out;
}

winsize screen() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) size = {24, 80, 0, 0};
  return size;
}

}  // namespace

Progress::Progress(const Sweep& sweep) : sweep_(sweep), terminal_(::isatty(STDOUT_FILENO) == 1), last_(std::chrono::steady_clock::now()) {}

Progress::~Progress() { std::fflush(stdout); }

void Progress::erase() {
  if (drawn_ > 0) fmt::print("\033[{}A\033[J", drawn_);
  drawn_ = 0;
}

void Progress::say(const std::string& text) {
  erase();
  fmt::print("{}\n", text);
  std::fflush(stdout);
}

void Progress::update(const std::vector<RunView>& views, double eta_seconds) {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_ < (terminal_ ? kRedraw : kPlainLine)) return;
  last_ = now;
  size_t width = 4;
  for (const ArmRun& run : sweep_.runs) width = std::max(width, run.name.size());
  const auto done = std::count_if(views.begin(), views.end(), [](const RunView& v) { return v.stage == Stage::finished; });
  const auto left_out = std::count_if(views.begin(), views.end(), [](const RunView& v) { return v.stage == Stage::not_asked; });
  std::vector<std::string> lines;
  const winsize size = screen();
  // A long table shows what is running; the rest is counted in the last line.
  const bool all = terminal_ && views.size() + 2 <= size.ws_row;
  for (size_t i = 0; i < views.size(); ++i)
    if (all || views[i].stage == Stage::running) lines.push_back(run_line(sweep_.runs[i], views[i], width));
  lines.push_back(
      fmt::format("{} of {} runs done, about {} left", done, static_cast<int64_t>(views.size()) - left_out, format_duration(eta_seconds)));
  erase();
  for (const std::string& line : lines) fmt::print("{}\n", terminal_ ? line.substr(0, size.ws_col - 1) : line);
  std::fflush(stdout);
  drawn_ = terminal_ ? static_cast<int>(lines.size()) : 0;
}

}  // namespace moba::sweep
