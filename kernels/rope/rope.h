// Rotary position embedding (arXiv 2104.09864), half-split layout as in Hugging Face:
//   (x1, x2) = halves of a head; y1 = x1*cos - x2*sin, y2 = x2*cos + x1*sin, angle = position * inv_freq[d], d < D/2.
// The backward pass is the rotation by the negative angle. D must be even.
#pragma once
#include <vector>

#include "kernels/common/dispatch.h"

namespace moba::kernels {

enum class RopeType : uint8_t { none, linear, llama3 };

struct RopeScaling {
  RopeType type = RopeType::none;
  double factor = 1;                                 // linear, llama3
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  int64_t original_max_position_embeddings = 8192;   // llama3
  double position_interpolation = 1;                 // positions are divided by this first
};

// [D/2] fp64 inverse frequencies with the scaling applied (position interpolation included).
std::vector<double> rope_inv_freq(int64_t head_dim, double theta, const RopeScaling& scaling);

struct RopeArgs {
  Stream stream;
  DType dtype = DType::f32;  // f32, bf16, f64
  int64_t tokens = 0, heads = 0, head_dim = 0;
  const void* x = nullptr;             // [T, heads, D]
  void* y = nullptr;                   // [T, heads, D]; may equal x
  const int32_t* positions = nullptr;  // [T], 0-based in their sequence
  const double* inv_freq = nullptr;    // [D/2]
  bool inverse = false;                // backward
};

void rope(const RopeArgs& args);  // angles in fp64, cos/sin rounded to fp32 (f64 for f64)
void rope_reference(const RopeArgs& args);

}  // namespace moba::kernels
