#include "tests/support/moba_oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/support/compare.h"

namespace moba::test {
namespace {

using kernels::AttentionType;
using kernels::Gate;
using kernels::Select;

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

double dot(const float* a, const float* b, int64_t n) {
  double sum[4] = {0, 0, 0, 0};  // four chains: the oracle waits for additions otherwise
  for (int64_t d = 0; d < n; ++d) sum[d % 4] += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// One sequence of a case with its tensors.
struct View {
  const MobaCase& c;
  const MobaInputs& in;
  int64_t q0, Lq, k0, Lk;

  View(const MobaCase& c_, const MobaInputs& in_, int64_t s)
      : c(c_), in(in_), q0(in_.cu_q[s]), Lq(in_.cu_q[s + 1] - q0), k0(in_.cu_k[s]), Lk(in_.cu_k[s + 1] - k0) {}
  int64_t position(int64_t i) const { return Lk - Lq + i; }
  int64_t group() const { return c.H / c.Hk; }
  const float* q(int64_t i, int64_t h) const { return &in.q[static_cast<size_t>(((q0 + i) * c.H + h) * c.D)]; }
  const float* k(int64_t t, int64_t h) const { return &in.k[static_cast<size_t>(((k0 + t) * c.Hk + h / group()) * c.D)]; }
  const float* v(int64_t t, int64_t h) const { return &in.v[static_cast<size_t>(((k0 + t) * c.Hk + h / group()) * c.D)]; }
  const float* dout(int64_t i, int64_t h) const { return &in.dout[static_cast<size_t>(((q0 + i) * c.H + h) * c.D)]; }
};

int64_t num_blocks(int64_t length, int64_t S) { return (length + S - 1) / S; }

int64_t rows_of(const MobaCase& c) { return c.select == Select::per_group ? c.Hk : c.H; }

double mean_score(const View& w, const float* q, int64_t h, int64_t block) {
  double score = 0;
  for (int64_t d = 0; d < w.c.D; ++d) {
    double sum = 0;
    for (int64_t t = block * w.c.S; t < (block + 1) * w.c.S; ++t) sum += w.k(t, h)[d];
    score += q[d] * (sum / static_cast<double>(w.c.S));
  }
  return score;
}

double minmax_score(const View& w, const float* q, int64_t h, int64_t block) {
  double score = 0;
  for (int64_t d = 0; d < w.c.D; ++d) {
    double low = w.k(block * w.c.S, h)[d], high = low;
    for (int64_t t = block * w.c.S; t < (block + 1) * w.c.S; ++t) {
      low = std::min(low, static_cast<double>(w.k(t, h)[d]));
      high = std::max(high, static_cast<double>(w.k(t, h)[d]));
    }
    score += std::max(q[d] * low, q[d] * high);
  }
  return score;
}

// Share of the dense causal attention of query i, head h that falls on the block.
double attention_share(const View& w, int64_t i, int64_t h, int64_t block) {
  const int64_t p = w.position(i);
  std::vector<double> scores;
  for (int64_t t = 0; t <= p; ++t) scores.push_back(w.c.softmax_scale() * dot(w.q(i, h), w.k(t, h), w.c.D));
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0, share = 0;
  for (int64_t t = 0; t <= p; ++t) {
    total += std::exp(scores[static_cast<size_t>(t)] - largest);
    if (t / w.c.S == block) share += std::exp(scores[static_cast<size_t>(t)] - largest);
  }
  return share / total;
}

std::vector<double> scores_of(const View& w, int64_t i, int64_t row) {
  const int64_t own = w.position(i) / w.c.S, heads = w.c.H / rows_of(w.c);
  std::vector<double> scores(static_cast<size_t>(own), 0.0);
  for (int64_t b = 0; b < own; ++b)
    for (int64_t h = row * heads; h < (row + 1) * heads; ++h) {
      if (w.c.gate == Gate::mean) scores[static_cast<size_t>(b)] += mean_score(w, w.q(i, h), h, b);
      if (w.c.gate == Gate::minmax) scores[static_cast<size_t>(b)] += minmax_score(w, w.q(i, h), h, b);
      if (w.c.gate == Gate::oracle) scores[static_cast<size_t>(b)] += attention_share(w, i, h, b);
    }
  return scores;
}

// History blocks of one query in the order they are listed.
std::vector<int64_t> history_of(const View& w, int64_t i, int64_t row) {
  const int64_t own = w.position(i) / w.c.S, take = std::min(w.c.K - 1, own);
  std::vector<int64_t> blocks;
  for (int64_t b = own - 1; b >= 0; --b) blocks.push_back(b);
  if (w.c.gate == Gate::sink && take > 0) {
    blocks.resize(static_cast<size_t>(take - 1));
    blocks.push_back(0);
    return blocks;
  }
  if (w.c.gate != Gate::window) {
    const std::vector<double> scores = scores_of(w, i, row);
    // Stable and from the latest block down: among equal scores the later block stays first.
    std::stable_sort(blocks.begin(), blocks.end(),
                     [&](int64_t a, int64_t b) { return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)]; });
  }
  blocks.resize(static_cast<size_t>(take));
  return blocks;
}

// Blocks that query i of head h reads, 1 = chosen.
std::vector<char> chosen_blocks(const View& w, int64_t i, int64_t h, const OracleSelection& selection) {
  std::vector<char> chosen(static_cast<size_t>(num_blocks(w.Lk, w.c.S)), 0);
  const int64_t row = (w.q0 + i) * selection.rows + h / (w.c.H / selection.rows);
  for (int64_t j = 0; j < selection.slots; ++j)
    if (const int32_t block = selection.selected[static_cast<size_t>(row * selection.slots + j)]; block >= 0)
      chosen[static_cast<size_t>(block)] = 1;
  return chosen;
}

// mask[i * Lk + t]: query i reads key t.
std::vector<char> mask_of(const View& w, int64_t h, const OracleSelection& selection) {
  std::vector<char> mask(static_cast<size_t>(w.Lq * w.Lk), 0);
  for (int64_t i = 0; i < w.Lq; ++i) {
    const std::vector<char> chosen = w.c.type == AttentionType::moba ? chosen_blocks(w, i, h, selection) : std::vector<char>{};
    for (int64_t t = 0; t <= w.position(i); ++t) {
      bool reads = true;
      if (w.c.type == AttentionType::window) reads = w.position(i) - t < w.c.window;
      if (w.c.type == AttentionType::moba) reads = chosen[static_cast<size_t>(t / w.c.S)];
      mask[static_cast<size_t>(i * w.Lk + t)] = reads;
    }
  }
  return mask;
}

double keep(double x) { return x; }
double round_bf16(double x) { return to_float(to_bf16(static_cast<float>(x))); }

// Softmax attention of one head through whole [Lq, Lk] matrices; `round` is applied where plain tensor code stores a tensor.
template <class Round>
void attend(const View& w, int64_t h, const OracleSelection& selection, Round round, OracleAttention& result) {
  const int64_t Lq = w.Lq, Lk = w.Lk, D = w.c.D;
  const double scale = w.c.softmax_scale();
  const std::vector<char> mask = mask_of(w, h, selection);
  std::vector<double> P(mask.size(), 0.0), dP(mask.size(), 0.0);
  for (int64_t i = 0; i < Lq; ++i) {
    double *p = &P[static_cast<size_t>(i * Lk)], *dp = &dP[static_cast<size_t>(i * Lk)];
    const char* reads = &mask[static_cast<size_t>(i * Lk)];
    double largest = kMinusInfinity, total = 0;
    for (int64_t t = 0; t < Lk; ++t) {
      if (!reads[t]) continue;
      p[t] = scale * dot(w.q(i, h), w.k(t, h), D);
      largest = std::max(largest, p[t]);
      result.largest_score = std::max(result.largest_score, std::abs(p[t]));
    }
    for (int64_t t = 0; t < Lk; ++t)
      if (reads[t]) total += p[t] = std::exp(p[t] - largest);
    const size_t row = static_cast<size_t>((w.q0 + i) * w.c.H + h);
    result.lse[row] = largest + std::log(total);
    std::vector<double> out(static_cast<size_t>(D), 0.0);
    double delta = 0;
    for (int64_t t = 0; t < Lk; ++t) {
      if (!reads[t]) continue;
      p[t] = round(p[t] / total);
      dp[t] = round(dot(w.dout(i, h), w.v(t, h), D));
      delta += p[t] * dp[t];
      for (int64_t d = 0; d < D; ++d) out[static_cast<size_t>(d)] += p[t] * w.v(t, h)[d];
    }
    for (int64_t d = 0; d < D; ++d) result.out[row * static_cast<size_t>(D) + static_cast<size_t>(d)] = round(out[static_cast<size_t>(d)]);
    for (int64_t t = 0; t < Lk; ++t)
      if (reads[t]) dp[t] = round(p[t] * (dp[t] - delta));
  }
  const auto squares = [&](auto&& row, int64_t n) {
    std::vector<double> norms;
    for (int64_t i = 0; i < n; ++i) norms.push_back(dot(row(i), row(i), D));
    return norms;
  };
  const auto q_norm = squares([&](int64_t i) { return w.q(i, h); }, Lq), dout_norm = squares([&](int64_t i) { return w.dout(i, h); }, Lq);
  const auto k_norm = squares([&](int64_t t) { return w.k(t, h); }, Lk), v_norm = squares([&](int64_t t) { return w.v(t, h); }, Lk);
  for (int64_t i = 0; i < Lq; ++i)
    for (int64_t t = 0; t < Lk; ++t) {
      if (!mask[static_cast<size_t>(i * Lk + t)]) continue;
      const double p = P[static_cast<size_t>(i * Lk + t)], ds = scale * dP[static_cast<size_t>(i * Lk + t)];
      double* dq = &result.dq[static_cast<size_t>(((w.q0 + i) * w.c.H + h) * D)];
      double* dk = &result.dk[static_cast<size_t>(((w.k0 + t) * w.c.Hk + h / w.group()) * D)];
      double* dv = &result.dv[static_cast<size_t>(((w.k0 + t) * w.c.Hk + h / w.group()) * D)];
      const double noise = scale * scale * p * p * dout_norm[static_cast<size_t>(i)] * v_norm[static_cast<size_t>(t)];
      result.dq_noise += noise * k_norm[static_cast<size_t>(t)];
      result.dk_noise += noise * q_norm[static_cast<size_t>(i)];
      for (int64_t d = 0; d < D; ++d) {
        dq[d] += ds * w.k(t, h)[d];
        dk[d] += ds * w.q(i, h)[d];
        dv[d] += p * w.dout(i, h)[d];
      }
    }
}

// sqrt(noise / |gradient|^2) in units of fp32's eps.
double relative_noise(double noise_squared, const std::vector<double>& gradient) {
  double norm = 0;
  for (const double x : gradient) norm += x * x;
  return norm == 0 ? 0 : std::sqrt(noise_squared / norm) * std::numeric_limits<float>::epsilon();
}

template <class Round>
OracleAttention attend_all(const MobaCase& c, const MobaInputs& in, const OracleSelection& selection, Round round) {
  OracleAttention result;
  result.out.assign(in.q.size(), 0.0);
  result.dq = result.out;
  result.lse.assign(static_cast<size_t>(in.tokens_q() * c.H), 0.0);
  result.dk.assign(in.k.size(), 0.0);
  result.dv = result.dk;
  for (int64_t s = 0; s < std::ssize(c.k_lens); ++s)
    for (int64_t h = 0; h < c.H; ++h) attend(View(c, in, s), h, selection, round, result);
  for (auto* gradient : {&result.dq, &result.dk, &result.dv})
    for (double& x : *gradient) x = round(x);
  result.dq_noise = relative_noise(result.dq_noise, result.dq);
  result.dk_noise = relative_noise(result.dk_noise, result.dk);
  return result;
}

}  // namespace

OracleSelection oracle_select(const MobaCase& c, const MobaInputs& in) {
  OracleSelection result;
  result.rows = rows_of(c);
  int64_t longest = 0;
  for (const int64_t length : c.k_lens) longest = std::max(longest, num_blocks(length, c.S));
  result.slots = std::max<int64_t>(1, std::min(c.K, longest));
  result.selected.assign(static_cast<size_t>(in.tokens_q() * result.rows * result.slots), -1);
  for (int64_t s = 0; s < std::ssize(c.k_lens); ++s) {
    const View w(c, in, s);
    for (int64_t i = 0; i < w.Lq; ++i)
      for (int64_t row = 0; row < result.rows; ++row) {
        auto to = result.selected.begin() + ((w.q0 + i) * result.rows + row) * result.slots;
        *to++ = static_cast<int32_t>(w.position(i) / c.S);
        for (const int64_t block : history_of(w, i, row)) *to++ = static_cast<int32_t>(block);
      }
  }
  return result;
}

std::vector<double> oracle_scores(const MobaCase& c, const MobaInputs& in, int64_t sequence, int64_t query, int64_t row) {
  return scores_of(View(c, in, sequence), query, row);
}

OracleAttention oracle_attention(const MobaCase& c, const MobaInputs& in, const OracleSelection& selection) {
  return attend_all(c, in, selection, keep);
}

OracleAttention plain_bf16_attention(const MobaCase& c, const MobaInputs& in, const OracleSelection& selection) {
  return attend_all(c, in, selection, round_bf16);
}

Tolerance tolerance_for(DType dtype, const MobaCase& c, const MobaInputs& in, const OracleSelection& selection,
                        const OracleAttention& want) {
  const double epsilon = dtype == DType::f64 ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
  const double rounding = 4 * epsilon * want.largest_score;
  const double noise_scale = 4 * epsilon / std::numeric_limits<float>::epsilon();
  const double dq_extra = 4 * rounding + noise_scale * want.dq_noise, dk_extra = 4 * rounding + noise_scale * want.dk_noise;
  if (dtype == DType::f64) return {1e-12 + rounding, 1e-11 + dq_extra, 1e-11 + dk_extra, 1e-11 + 4 * rounding, 1e-12 + rounding};
  if (dtype == DType::f32) {
    return {std::max(1e-5, rounding), std::max(1e-4, dq_extra), std::max(1e-4, dk_extra), std::max(1e-4, 4 * rounding),
            std::max(1e-5, rounding)};
  }
  const OracleAttention plain = plain_bf16_attention(c, in, selection);
  const auto times = [](double factor, const std::vector<double>& got, const std::vector<double>& exact) {
    return std::max(1e-3, factor * relative_rms(got, exact));
  };
  // Scores and sums are fp32 here too, so the extras are the same.
  return {times(2, plain.out, want.out) + rounding, times(3, plain.dq, want.dq) + dq_extra, times(3, plain.dk, want.dk) + dk_extra,
          times(3, plain.dv, want.dv) + 4 * rounding, 1e-3 + rounding};
}

}  // namespace moba::test
