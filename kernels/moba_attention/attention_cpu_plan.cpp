#include "kernels/moba_attention/attention_cpu_plan.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "kernels/common/threads.h"

namespace moba::kernels::attention_cpu {
namespace {

constexpr int64_t kChunkRows = 4096;  // O rows of a chunk: 2 MiB at D 128
constexpr int64_t kMinChunkQueries = 512;
constexpr int64_t kChunksOfShort = 8;   // a sequence too short for full chunks is cut into about this many
constexpr int64_t kUnitsPerThread = 2;  // (sequence, kv head) worked on at a time: chunks of one wait for each other in backward
constexpr int64_t kHugePage = 2 << 20;

int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Depends on the sequence alone, so that backward adds in the same order however it is packed.
int64_t chunk_queries(int64_t q_count, int64_t group) {
  const int64_t most = std::max<int64_t>(1, kChunkRows / group);
  return std::min(most, std::max(kMinChunkQueries, round_up(q_count / kChunksOfShort, 64)));
}

std::vector<Item> order_items(const std::vector<Sequence>& sequences, int64_t kv_heads) {
  std::vector<Item> units;
  for (size_t b = 0; b < sequences.size(); ++b)
    for (int64_t kv = 0; kv < kv_heads; ++kv) units.push_back({static_cast<int32_t>(b), static_cast<int32_t>(kv), 0});
  auto chunks = [&](const Item& unit) { return static_cast<int32_t>(sequences[static_cast<size_t>(unit.sequence)].chunks); };
  std::ranges::stable_sort(units, std::ranges::greater(), chunks);
  std::vector<Item> items;
  const size_t at_a_time = static_cast<size_t>(kUnitsPerThread * num_threads());
  for (size_t first = 0; first < units.size(); first += at_a_time) {
    for (int32_t chunk = chunks(units[first]) - 1; chunk >= 0; --chunk)
      for (size_t u = first; u < std::min(units.size(), first + at_a_time); ++u)
        if (chunk < chunks(units[u])) items.push_back({units[u].sequence, units[u].kv, chunk});
  }
  return items;
}

}  // namespace

Plan make_plan(const AttentionArgs& args, const KernelTable& table, bool backward) {
  const AttentionShape& shape = args.shape;
  Plan plan;
  plan.kv_heads = shape.kv_heads;
  plan.group = shape.heads / shape.kv_heads;
  plan.head_dim = shape.head_dim;
  plan.tile = table.shape;
  plan.backward = backward;
  plan.depth_words = (shape.head_dim + table.shape.pair - 1) / table.shape.pair;
  plan.padded_dim = round_up(shape.head_dim, table.shape.columns);
  plan.limits = {0, shape.head_dim, 0, args.slots, backward};
  int64_t all_chunks = 0;
  for (int64_t b = 0; b < shape.batch; ++b) {
    Sequence s;
    s.q_begin = shape.cu_seqlens_q[b];
    s.q_count = shape.cu_seqlens_q[b + 1] - s.q_begin;
    s.k_begin = shape.cu_seqlens_k[b];
    s.k_count = shape.cu_seqlens_k[b + 1] - s.k_begin;
    if (s.q_count == 0 && !backward) s.k_count = 0;  // nobody reads these keys
    s.padded_keys_before = plan.padded_keys;
    s.panels_before = plan.panels;
    s.chunks_before = all_chunks;
    s.chunk_queries = chunk_queries(s.q_count, plan.group);
    s.chunks = (s.q_count + s.chunk_queries - 1) / s.chunk_queries;
    plan.padded_keys += round_up(s.k_count, table.shape.columns);
    plan.panels += (s.k_count + kPanelKeys - 1) / kPanelKeys;
    all_chunks += s.chunks;
    plan.limits.rows = std::max(plan.limits.rows, std::min(s.q_count, s.chunk_queries) * plan.group);
    if (args.type == AttentionType::moba)
      plan.limits.blocks = std::max(plan.limits.blocks, (s.k_count + args.chunk_size - 1) / args.chunk_size);
    plan.sequences.push_back(s);
  }
  plan.items = order_items(plan.sequences, plan.kv_heads);

  int64_t end = 0;
  auto place = [&](int64_t bytes) { return std::exchange(end, end + round_up(bytes, 64)); };
  const int64_t keys = plan.kv_heads * plan.padded_keys, word = sizeof(float);
  plan.at.k_columns = place(keys * plan.depth_words * word);
  plan.at.v_rows = place(keys / table.shape.pair * plan.padded_dim * word);
  if (backward) {
    plan.at.v_columns = place(keys * plan.depth_words * word);
    plan.at.k_rows = place(keys / table.shape.pair * plan.padded_dim * word);
    plan.at.dk = place(keys * plan.padded_dim * word);
    plan.at.dv = place(keys * plan.padded_dim * word);
    plan.at.progress = place(plan.kv_heads * all_chunks * 64);  // a cache line each
  }
  plan.at.nonfinite = place(plan.kv_heads * plan.panels);
  plan.at.scratch = place(0);
  plan.at.scratch_each = round_up(table.scratch_bytes(plan.limits), 4096);
  const int64_t threads = std::min<int64_t>(num_threads(), static_cast<int64_t>(plan.items.size()));
  plan.at.bytes = round_up(end + threads * plan.at.scratch_each, kHugePage);
  return plan;
}

Workspace::Workspace(int64_t bytes) {
  if (bytes == 0) return;
  if (kept().bytes >= bytes) {
    block_ = std::exchange(kept(), {});
    return;
  }
  kept() = {};  // too small for this call: not held beside its successor
  void* p = std::aligned_alloc(kHugePage, static_cast<size_t>(bytes));
  if (!p) throw std::bad_alloc();
  block_.base.reset(static_cast<char*>(p));
  block_.bytes = bytes;
  madvise(p, static_cast<size_t>(bytes), MADV_HUGEPAGE);
}

Workspace::~Workspace() {
  if (block_.bytes <= kAttentionWorkspaceKept && block_.bytes > kept().bytes) kept() = std::move(block_);
}

Workspace::Block& Workspace::kept() {
  thread_local Block block;
  return block;
}

void Workspace::Free::operator()(char* p) const { std::free(p); }

}  // namespace moba::kernels::attention_cpu
