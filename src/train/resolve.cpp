#include "src/train/resolve.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "src/autograd/device.h"

namespace moba {

ResolvedPrecision resolve_precision(Recipe& recipe) {
  const bool fast = kernels::has_bf16_products();
  ResolvedPrecision out;
  switch (recipe.precision) {
    case Precision::fp32: out = {DType::f32, "fp32 (as the recipe says)"}; break;
    case Precision::bf16:
      out = {DType::bf16, fast ? "bf16 (as the recipe says)"
                               : "bf16 (as the recipe says; slow here: this CPU or the forced kernels have no bf16 products)"};
      break;
    case Precision::automatic:
      if (fast)
        out = {DType::bf16, "bf16 (auto: the CPU has bf16 products)"};
      else
        out = {DType::f32, "fp32 (auto: the CPU or the forced kernels have no bf16 products)"};
      break;
  }
  recipe.precision = out.dtype == DType::bf16 ? Precision::bf16 : Precision::fp32;
  set_path(recipe.tree, "train.precision", yaml_scalar(out.dtype == DType::bf16 ? "bf16" : "fp32"), "resolved");
  return out;
}

namespace {

constexpr int64_t kDefaultLanes = 8;

int64_t default_lanes(int64_t micro_batches) {
  return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(std::min(micro_batches, kDefaultLanes))));
}

}  // namespace

void resolve_micro_batch(Recipe& recipe) {
  if (recipe.micro_batch_size > 0) return;
  // With stages of several lengths one number has to fit all of them. It must not take lanes away, nor depend on the number of ranks.
  int64_t longest = 0;
  for (const StageRecipe& stage : recipe.stages) longest = std::max(longest, stage.sequence_length);
  const int64_t fewest = recipe.global_batch_tokens / longest;
  const int64_t lanes = recipe.lanes > 0 ? recipe.lanes : default_lanes(fewest);
  const auto fits_all = [&](int64_t n) {
    return std::ranges::all_of(recipe.stages, [&](const StageRecipe& stage) {
      const int64_t sequences = recipe.global_batch_tokens / stage.sequence_length;
      return sequences % n == 0 && sequences / n >= lanes;
    });
  };
  int64_t best = 1;
  for (int64_t n = 2; n <= fewest && n * longest <= kAutoMicroBatchTokens; ++n)
    if (fits_all(n)) best = n;
  recipe.micro_batch_size = best;
  set_path(recipe.tree, "train.micro_batch_size", yaml_scalar(std::to_string(best)), "resolved");
}

void resolve_lanes(Recipe& recipe) {
  int64_t fewest = std::numeric_limits<int64_t>::max();  // micro-batches of a step
  for (const StageRecipe& stage : recipe.stages) {
    const int64_t micro_batches = recipe.global_batch_tokens / (stage.sequence_length * recipe.micro_batch_size);
    MOBA_CHECK(micro_batches % recipe.data_ranks == 0,
               "parallel.data: the {} micro-batches of a step do not divide over {} ranks; change train.global_batch_tokens or "
               "train.micro_batch_size ({})",
               micro_batches, recipe.data_ranks, recipe.micro_batch_size);
    fewest = std::min(fewest, micro_batches);
  }
  if (recipe.lanes == 0) recipe.lanes = default_lanes(fewest);
  set_path(recipe.tree, "parallel.lanes", yaml_scalar(std::to_string(recipe.lanes)), "resolved");
  MOBA_CHECK(
      recipe.lanes >= recipe.data_ranks || fewest < recipe.data_ranks,
      "parallel.data: {} ranks, but parallel.lanes is {}, and a rank owns whole lanes; set parallel.lanes={} (another number of lanes "
      "gives other bits)",
      recipe.data_ranks, recipe.lanes, std::bit_ceil(static_cast<uint64_t>(recipe.data_ranks)));
  MOBA_CHECK(recipe.lanes >= recipe.data_ranks,
             "parallel.data: {} ranks, but the {} micro-batches of a step make only {} lanes, and a rank owns whole lanes; raise "
             "train.global_batch_tokens or lower train.micro_batch_size",
             recipe.data_ranks, fewest, recipe.lanes);
  MOBA_CHECK(recipe.lanes <= fewest, "parallel.lanes: {} lanes, but a step has only {} micro-batches; lower it, or leave it out",
             recipe.lanes, fewest);
}

Device resolve_device(const std::string& name) {
  if (name == "auto" || name == "cpu") return {};
  MOBA_CHECK(name == "cuda", "--device {}: must be auto, cpu or cuda", name);
  MOBA_CHECK(cuda_backend().count() > 0,
             "--device cuda: no usable CUDA device ({}); use --device cpu, or a build with preset cuda and an NVIDIA GPU",
             cuda_backend().description());
  throw Error("--device cuda: the model's attention, norm and loss kernels exist for the CPU only in this version; use --device cpu");
}

}  // namespace moba
