#include "tools/moba_data/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace moba {
namespace {

std::string human(double amount, const std::string& unit) {
  if (amount >= 1e6) return fmt::format("{:.1f} M{}", amount / 1e6, unit);
  if (amount >= 1e3 && unit == "B") return fmt::format("{:.1f} kB", amount / 1e3);
  return fmt::format("{:.0f} {}", amount, unit);
}

}  // namespace

ProgressBar::ProgressBar(std::string title, std::string unit)
    : title_(std::move(title)), unit_(std::move(unit)), terminal_(isatty(STDERR_FILENO) == 1), start_(Clock::now()) {}

void ProgressBar::end() {
  if (drawn_) fmt::print(stderr, "\n");
  drawn_ = false;
}

void ProgressBar::update(int64_t done, int64_t total) {
  const double share = total > 0 ? std::min(1.0, static_cast<double>(done) / static_cast<double>(total)) : 1.0;
  const auto now = Clock::now();
  const double seconds = std::max(1e-9, std::chrono::duration<double>(now - start_).count());
  const std::string rate = human(static_cast<double>(done) / seconds, unit_) + "/s";
  if (terminal_) {
    if (drawn_ && share < 1 && now - last_drawn_ < std::chrono::milliseconds(100)) return;
    constexpr int kWidth = 30;
    const int filled = static_cast<int>(share * kWidth);
    const double left = share > 0 ? seconds * (1 - share) / share : 0;
    fmt::print(stderr, "\r{} [{}{}] {:3.0f}% {}, {:.0f} s left ", title_, std::string(filled, '#'), std::string(kWidth - filled, '.'),
               100 * share, rate, left);
    last_drawn_ = now;
    drawn_ = true;
    return;
  }
  const auto quarter = static_cast<int64_t>(share * 4);
  if (quarter == last_quarter_ || quarter == 0) return;
  last_quarter_ = quarter;
  fmt::print(stderr, "{}: {:.0f}% of {}, {}\n", title_, 100 * share, human(static_cast<double>(total), unit_), rate);
}

}  // namespace moba
