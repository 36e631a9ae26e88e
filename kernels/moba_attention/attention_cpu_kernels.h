// Between the driver of CPU attention (attention_cpu.cpp, plain C++) and its instruction-set variants (templates compiled once
// per set): plain structs and a table of functions. The variants allocate nothing and throw nothing.
#pragma once
#include "kernels/moba_attention/moba_attention.h"

namespace moba::kernels::attention_cpu {

// Keys of one softmax step. Panel borders are counted from the start of the key sequence, so that a row's arithmetic depends
// neither on packing nor on the queries beside it. K and V of one panel (2 x 128 KB at D 128) stay in L2 while rows pass by.
constexpr int kPanelKeys = 256;
// Rows of one tile: its queries and probabilities (48 x 256 fp32) share L1 and L2 with the panel.
constexpr int kTileRows = 48;

// What a variant's register tile looks like.
struct TileShape {
  int columns = 0;  // keys (or output columns) of a register tile; packed panels are padded to it
  int pair = 1;     // values per 32-bit word: 2 where bf16 pairs are multiplied directly, else 1
};

// One (sequence, kv head): packed keys and values. Words are 32 bit: an fp32 value or a bf16 pair along the summed dimension.
struct PackedHead {
  int64_t keys = 0;              // Lk
  float* k_columns = nullptr;    // [Lp/columns][depth words][columns]: K transposed, for Q K^T
  float* v_rows = nullptr;       // per panel [Dp/columns][panel keys/pair][columns]: for P V
  float* v_columns = nullptr;    // like k_columns, for dO V^T (backward only)
  float* k_rows = nullptr;       // like v_rows, for dS K (backward only)
  uint8_t* nonfinite = nullptr;  // [panels] 1: K or V of the panel hold NaN or Inf
};

// Everything a chunk of consecutive queries of one (sequence, kv head) needs. Its rows are the query heads of the group side by
// side: row r is query q_begin + r / group, head r % group of the group; key limits ascend with r.
struct ChunkJob {
  AttentionType type = AttentionType::full;
  int64_t window = 0, chunk_size = 0, slots = 0;
  int64_t head_dim = 0, group = 1;
  int64_t q_begin = 0, q_end = 0;  // query indices in the sequence
  int64_t position = 0;            // key position of query q_begin
  float scale = 0;
  int64_t token_stride = 0;                               // elements between tokens of q, out, dout, dq (H * D)
  int64_t lse_stride = 0;                                 // floats between tokens of lse (H)
  int64_t selected_stride = 0, selected_head_stride = 0;  // int32 between tokens, between heads of the group
  const void* q = nullptr;                                // at query q_begin, first head of the group; so are the next five
  void* out = nullptr;
  float* lse = nullptr;
  const int32_t* selected = nullptr;
  const void* dout = nullptr;
  void* dq = nullptr;
  PackedHead packed;
  // backward: gradients of this (sequence, kv head), [Lp][Dp] fp32, and the order in which chunks add to them
  float* dk = nullptr;
  float* dv = nullptr;
  int64_t* progress = nullptr;               // panels finished by this chunk
  const int64_t* progress_before = nullptr;  // of the chunk that adds before this one, or null
};

struct PackJob {
  int64_t head_dim = 0, keys = 0, token_stride = 0;  // keys: of the sequence; stride in elements
  int64_t panel = 0;
  bool backward = false;
  const void* k = nullptr;  // first key of the sequence, this kv head
  const void* v = nullptr;
  PackedHead packed;
};

// Limits of a workspace plan that scratch sizes depend on.
struct ScratchLimits {
  int64_t rows = 0;  // of the largest chunk
  int64_t head_dim = 0;
  int64_t blocks = 0;  // most blocks of a sequence
  int64_t slots = 0;
  bool backward = false;
};

struct KernelTable {
  TileShape shape;
  int64_t (*scratch_bytes)(const ScratchLimits&);  // per thread
  void (*pack)(const PackJob&);
  void (*forward)(const ChunkJob&, void* scratch);
  void (*backward)(const ChunkJob&, void* scratch);
};

// Tables by tensor dtype; each lives in the file of its instruction set.
const KernelTable& table_sse(DType dtype);
const KernelTable& table_avx2(DType dtype);
const KernelTable& table_avx512(DType dtype);
const KernelTable& table_avx512_bf16(DType dtype);

}  // namespace moba::kernels::attention_cpu
