// Counts and FLOPs of the decoder against brute force.
#include "src/layers/config.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/common/check.h"
#include "tests/layers/model_support.h"

namespace moba::test {
namespace {

double brute_force_pairs(const AttentionConfig& a, int64_t length) {
  int64_t pairs = 0;
  for (int64_t p = 0; p < length; ++p)
    for (int64_t key = 0; key <= p; ++key) {
      const int64_t own = p / a.moba.chunk_size, block = key / a.moba.chunk_size;
      switch (a.type) {
        case kernels::AttentionType::full: ++pairs; break;
        case kernels::AttentionType::window: pairs += p - key < a.window; break;
        // Which blocks are chosen does not matter: as many as there are, at most K-1.
        case kernels::AttentionType::moba: pairs += block == own || block >= own - (a.moba.topk - 1); break;
      }
    }
  return static_cast<double>(pairs) / static_cast<double>(length);
}

TEST(ModelConfig, SelectedPairsMatchBruteForce) {
  for (const int64_t length : {1, 7, 16, 17, 100}) {
    for (const int64_t window : {1, 5, 200}) {
      const AttentionConfig a = window_attention(window).attention;
      EXPECT_NEAR(selected_pairs_per_query(a, length), brute_force_pairs(a, length), 1e-9) << length << " window " << window;
    }
    for (const auto& [chunk_size, topk] : {std::pair{16, 3}, {1, 2}, {5, 1}, {7, 200}, {128, 3}}) {
      const AttentionConfig a = moba_attention(chunk_size, topk).attention;
      EXPECT_NEAR(selected_pairs_per_query(a, length), brute_force_pairs(a, length), 1e-9)
          << length << " S " << chunk_size << " K " << topk;
    }
    EXPECT_NEAR(selected_pairs_per_query(full_attention().attention, length), brute_force_pairs(full_attention().attention, length), 1e-9);
  }
}

// The smallest model of the scaling-law runs: 14 layers, 14 heads of 128.
TEST(ModelConfig, PaperSizedCounts) {
  TransformerConfig c;
  c.hidden_size = 1792;
  c.intermediate_size = 4864;
  c.num_hidden_layers = 14;
  c.num_attention_heads = c.num_key_value_heads = 14;
  c.vocab_size = 32000;
  c.max_position_embeddings = 8192;
  validate(c);
  const int64_t block = 4 * 1792 * 1792 + 3 * 1792 * 4864;
  EXPECT_EQ(embedding_parameter_count(c), 2 * 32000 * 1792);
  EXPECT_EQ(parameter_count(c), 2 * 32000 * 1792 + 14 * (block + 2 * 1792) + 1792);
  EXPECT_EQ(matrix_parameter_count(c), 14 * block + 32000 * 1792);
  const std::vector<int64_t> elements = parameter_elements(c);
  EXPECT_EQ(std::accumulate(elements.begin(), elements.end(), int64_t{0}), parameter_count(c));
  const std::vector<LayerAttention> layers(14, full_attention());
  EXPECT_DOUBLE_EQ(model_flops_per_token(c, layers, 8192),
                   6.0 * static_cast<double>(matrix_parameter_count(c)) + 14 * 12.0 * 128 * 14 * 4096.5);
}

TEST(ModelConfig, ErrorsNameTheKey) {
  const auto error_of = [](auto change) {
    TransformerConfig c = small_config();
    change(c);
    try {
      validate(c);
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of([](auto&) {}), "no error");
  EXPECT_NE(error_of([](auto& c) { c.hidden_size = 0; }).find("model.hidden_size must be >= 1, got 0"), std::string::npos);
  EXPECT_NE(error_of([](auto& c) { c.num_key_value_heads = 3; }).find("model.num_attention_heads (4) must be a multiple"),
            std::string::npos);
  EXPECT_NE(error_of([](auto& c) { c.head_dim = 7; }).find("model.head_dim must be even"), std::string::npos);
  EXPECT_NE(error_of([](auto& c) { c.head_dim = 258; }).find("2 .. 256, got 258"), std::string::npos);
  EXPECT_NE(error_of([](auto& c) { c.head_dim = 0, c.hidden_size = 34; }).find("or set model.head_dim"), std::string::npos);
  EXPECT_NE(error_of([](auto& c) { c.key_conv = 4; }).find("key_conv must be 0, 3 or 5, got 4"), std::string::npos);
  EXPECT_NE(error_of([](auto& c) { c.rms_norm_eps = -1; }).find("model.rms_norm_eps"), std::string::npos);
  EXPECT_NE(error_of([](auto& c) { c.rope_theta = std::nan(""); }).find("model.rope_theta"), std::string::npos);
}

}  // namespace
}  // namespace moba::test
