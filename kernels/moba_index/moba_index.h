// The index: from "which blocks does each query read" to "which queries read each block". Stage 2 of MoBA, as a stage of its own.
//
// CPU attention does not call it: it sorts the rows of each chunk of queries in its own scratch (attention_cpu_chunk.h), in the same
// order. This is the form for a GPU, where the lists lie between two launches; no program uses it yet, a test holds it to its rules.
//
// For one kv head (all its query heads) or one query head, and a range of queries of one sequence, the history entries of
// `selected` (slots 1 ..) are counting-sorted by block: rows of block b are entries [offsets[b], offsets[b+1]) of `queries`,
// ascending. The own block needs no list: queries of block b are contiguous. The last block of a sequence is nobody's history.
#pragma once
#include <cstdint>

#include "kernels/common/dispatch.h"

namespace moba::kernels {

struct MobaIndexArgs {
  const int32_t* selected = nullptr;  // first row of the range; row r at selected + r * row_stride
  int64_t row_stride = 0;             // int32 elements between rows
  int64_t rows = 0;                   // queries in the range
  int64_t slots = 0;                  // entries per row; slot 0 is the own block and is skipped
  int64_t blocks = 0;                 // N; lists exist for blocks 0 .. N-2
};

// offsets: [max(blocks,1)] (offsets[blocks-1] = total), queries: [rows * (slots-1)] row indices 0-based in the range.
// Returns the number of entries. Entries out of [0, blocks-2] other than -1 are an Error (corrupt selection).
int64_t moba_index(const MobaIndexArgs& args, int32_t* offsets, int32_t* queries);
int64_t moba_index_reference(const MobaIndexArgs& args, int32_t* offsets, int32_t* queries);

}  // namespace moba::kernels
