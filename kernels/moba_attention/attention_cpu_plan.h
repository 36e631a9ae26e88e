// How one call of CPU attention is cut into chunks, and where its workspace lies. A function of shapes, never of the data.
#pragma once
#include <memory>
#include <vector>

#include "kernels/moba_attention/attention_cpu_kernels.h"

namespace moba::kernels::attention_cpu {

struct Sequence {
  int64_t q_begin = 0, q_count = 0, k_begin = 0, k_count = 0;
  int64_t chunk_queries = 0, chunks = 0;
  int64_t padded_keys_before = 0, panels_before = 0, chunks_before = 0;  // sums over earlier sequences
};

// A work item: one chunk of one (sequence, kv head).
struct Item {
  int32_t sequence = 0, kv = 0, chunk = 0;
};

struct Plan {
  std::vector<Sequence> sequences;
  // In the order of work. A few (sequence, kv head) at a time, so that their keys and sums stay in cache; long sequences first, and
  // of each the late chunks first, which read most.
  std::vector<Item> items;
  int64_t kv_heads = 0, group = 1, head_dim = 0;
  int64_t depth_words = 0, padded_dim = 0;
  int64_t padded_keys = 0, panels = 0;  // of all sequences, one kv head
  TileShape tile;
  ScratchLimits limits;
  bool backward = false;

  // Workspace, byte offsets from its start.
  struct Layout {
    int64_t k_columns = 0, v_rows = 0, v_columns = 0, k_rows = 0, dk = 0, dv = 0, progress = 0, nonfinite = 0, scratch = 0;
    int64_t scratch_each = 0, bytes = 0;
  } at;
};

Plan make_plan(const AttentionArgs& args, const KernelTable& table, bool backward);

// Uninitialised memory on a 2 MiB border, huge pages asked for; a small one is the calling thread's last one again.
class Workspace {
 public:
  explicit Workspace(int64_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  template <class T>
  T* at(int64_t byte_offset) const {
    return reinterpret_cast<T*>(block_.base.get() + byte_offset);
  }

 private:
  struct Free {
    void operator()(char* p) const;
  };
  struct Block {
    std::unique_ptr<char, Free> base;
    int64_t bytes = 0;
  };
  static Block& kept();  // of this thread

  Block block_;
};

}  // namespace moba::kernels::attention_cpu
