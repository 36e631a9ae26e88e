// One variant of CPU attention: the table of the templates for a geometry and a tensor type. A file of an instruction set
// derives its own geometry type in an unnamed namespace, so that no instantiation is shared between files.
#pragma once
#include "kernels/moba_attention/attention_cpu_backward.h"
#include "kernels/moba_attention/attention_cpu_forward.h"

namespace moba::kernels::attention_cpu {

template <class G, class E>
static int64_t scratch_bytes(const ScratchLimits& limits) {
  return limits.backward ? BackwardChunk<G, E>::scratch_bytes(limits) : ForwardChunk<G, E>::scratch_bytes(limits);
}

template <class G, class E>
static void forward_chunk(const ChunkJob& job, void* scratch) {
  ForwardChunk<G, E>(job, scratch).run();
}

template <class G, class E>
static void backward_chunk(const ChunkJob& job, void* scratch) {
  BackwardChunk<G, E>(job, scratch).run();
}

template <class G, class E>
static constexpr KernelTable kVariant = {
    {G::kColumns, G::kPair}, scratch_bytes<G, E>, pack_panel<G, E>, forward_chunk<G, E>, backward_chunk<G, E>};

}  // namespace moba::kernels::attention_cpu
