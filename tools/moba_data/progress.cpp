#include "tools/moba_data/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace moba {

ProgressBar::ProgressBar(std::string title) : title_(std::move(title)), terminal_(isatty(STDERR_FILENO) == 1), start_(Clock::now()) {}

ProgressBar::~ProgressBar() {
  if (drawn_) fmt::print(stderr, "\n");
}

void ProgressBar::update(int64_t done, int64_t total) {
  const double share = total > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 1.0;
  const auto now = Clock::now();
  const double seconds = std::max(1e-9, std::chrono::duration<double>(now - start_).count());
  const double rate = static_cast<double>(done) / seconds / 1e6;
  if (terminal_) {
    if (drawn_ && share < 1 && now - last_drawn_ < std::chrono::milliseconds(100)) return;
    constexpr int kWidth = 30;
    const int filled = static_cast<int>(share * kWidth);
    const double left = share > 0 ? seconds * (1 - share) / share : 0;
    fmt::print(stderr, "\r{} [{}{}] {:3.0f}% {:.1f} MB/s, {:.0f} s left ", title_, std::string(filled, '#'),
               std::string(kWidth - filled, '.'), 100 * share, rate, left);
    last_drawn_ = now;
    drawn_ = true;
    return;
  }
  const auto tenth = static_cast<int64_t>(share * 10);
  if (tenth == last_tenth_) return;
  last_tenth_ = tenth;
  fmt::print(stderr, "{} {:3.0f}% of {:.1f} MB, {:.1f} MB/s\n", title_, 100 * share, static_cast<double>(total) / 1e6, rate);
}

}  // namespace moba
