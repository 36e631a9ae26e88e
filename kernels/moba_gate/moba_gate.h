// The gate: which key blocks each query reads. Stage 1 of MoBA (arXiv 2502.13189, eq. 5-8).
//
//   centroid_i = mean of the keys of block i (fp32), for every block of a sequence but its last
//   score(q, i) = <q, centroid_i> in fp32 accuracy; candidates are the blocks before the own one
//   selected    = own block, then the K-1 candidates of highest score; ties: larger block index first; a NaN score is no
//                 candidate, +-Inf are ordinary. At most min(K, N) entries, -1 where fewer.
// Other gates: minmax (Quest), window, sink, random, oracle (blocks by true attention mass: costs Q K^T); see docs/moba.md. For gates
// without scores the history blocks follow the own block in descending index. Workspace: centroids [N, Hk, D] fp32 (minmax: two of them)
// and per-thread tiles; no [T, N]. oracle: scores of 64 queries per thread.
#pragma once
#include "kernels/common/dispatch.h"
#include "kernels/moba_attention/moba_attention.h"

namespace moba::kernels {

enum class Gate : uint8_t { mean, minmax, window, sink, random, oracle };
enum class Select : uint8_t { per_head, per_group };

struct MobaGateArgs {
  Stream stream;
  AttentionShape shape;
  DType dtype = DType::f32;  // f32, bf16; f64 by the reference
  int64_t chunk_size = 0;    // S >= 1
  int64_t topk = 0;          // K >= 1, counts the own block
  Gate gate = Gate::mean;
  Select select = Select::per_head;
  uint64_t seed = 0;                 // gate == random: choice fixed by (seed, position in its sequence, head)
  double softmax_scale = 0;          // gate == oracle only
  const void* q = nullptr;           // [T, H, D]
  const void* k = nullptr;           // [Tk, Hk, D]
  const float* centroids = nullptr;  // gate mean, optional: result of moba_centroids kept by the caller (decode); k is not read
  int64_t slots = 0;                 // must equal moba_slots(shape, chunk_size, topk)
  int32_t* selected = nullptr;       // out: [T, H or Hk (per_group), slots]
};

// min(K, N of the longest key sequence), at least 1: row length of `selected`.
int64_t moba_slots(const AttentionShape& shape, int64_t chunk_size, int64_t topk);
// Number of blocks that get a centroid: sum over sequences of max(N-1, 0).
int64_t moba_centroid_rows(const AttentionShape& shape, int64_t chunk_size);

void moba_gate(const MobaGateArgs& args);
void moba_gate_reference(const MobaGateArgs& args);

// centroids: [moba_centroid_rows, Hk, D] fp32, blocks of sequence 0 first. Exposed for tests, statistics and decode caches.
void moba_centroids(const MobaGateArgs& args, float* centroids);
void moba_centroids_reference(const MobaGateArgs& args, float* centroids);

const char* gate_name(Gate gate);
const char* select_name(Select select);

}  // namespace moba::kernels
