#include <algorithm>
#include <cmath>
#include <numbers>

#include "src/optim/optimizer.h"

namespace moba {
namespace {

// Falls from 1 at progress 0 to `low` at progress 1.
double linear_fall(double progress, double low) { return 1 - (1 - low) * progress; }
double cosine_fall(double progress, double low) { return low + (1 - low) * 0.5 * (1 + std::cos(std::numbers::pi * progress)); }

// Share of [begin, end] covered at step, 0 .. 1.
double covered(int64_t step, int64_t begin, int64_t end) {
  if (step <= begin) return 0;
  if (step >= end) return 1;
  return static_cast<double>(step - begin) / static_cast<double>(end - begin);
}

}  // namespace

double learning_rate(const LrScheduleConfig& config, double lr, int64_t step, int64_t total_steps) {
  using Name = LrScheduleConfig::Name;
  if (step < config.warmup_steps) return lr * static_cast<double>(step) / static_cast<double>(config.warmup_steps);
  const int64_t warmup = config.warmup_steps, decay = std::llround(config.decay_ratio * static_cast<double>(total_steps));
  switch (config.name) {
    case Name::cosine: return lr * cosine_fall(covered(step, warmup, total_steps), config.min_lr_ratio);
    case Name::linear: return lr * linear_fall(covered(step, warmup, total_steps), config.min_lr_ratio);
    case Name::wsd: return lr * linear_fall(covered(step, std::max(warmup, total_steps - decay), total_steps), config.min_lr_ratio);
    case Name::constant: return lr;
  }
  return lr;
}

}  // namespace moba
