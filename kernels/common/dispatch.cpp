#include "kernels/common/dispatch.h"

#include <cstdlib>

#include "kernels/common/check.h"

namespace moba::kernels {
namespace {

constexpr Isa kAll[] = {Isa::reference, Isa::sse, Isa::avx2, Isa::avx512, Isa::avx512_bf16};

Isa choose() {
  if (const char* forced = std::getenv("MOBA_KERNEL"); forced && *forced) {
    const Isa isa = isa_from_name(forced);
    MOBA_CHECK(cpu_supports(isa), "MOBA_KERNEL={}: this CPU cannot run it; best here: {}", forced, isa_name(supported_isas().back()));
    return isa;
  }
  return supported_isas().back();
}

Isa& active() {
  static Isa isa = choose();
  return isa;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::reference: return "reference";
    case Isa::sse: return "sse";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
  }
  return "?";
}

Isa isa_from_name(const std::string& name) {
  for (Isa isa : kAll)
    if (name == isa_name(isa)) return isa;
  throw Error(fmt::format("MOBA_KERNEL={}: unknown; use reference, sse, avx2, avx512 or avx512_bf16", name));
}

bool cpu_supports(Isa isa) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  switch (isa) {
    case Isa::reference:
    case Isa::sse: return true;
    case Isa::avx2: return avx2;
    case Isa::avx512: return avx512;
    case Isa::avx512_bf16: return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> all;
  for (Isa isa : kAll)
    if (cpu_supports(isa)) all.push_back(isa);
  return all;
}

Isa active_isa() { return active(); }

void set_active_isa(Isa isa) {
  MOBA_CHECK(cpu_supports(isa), "kernel variant {}: this CPU cannot run it", isa_name(isa));
  active() = isa;
}

bool has_bf16_products() { return active() == Isa::avx512_bf16; }

void throw_no_device_kernel(const char* op, const Stream& stream) {
  throw Error(fmt::format("{} has no {} kernel in this build; use --device cpu", op, stream.device == DeviceType::cuda ? "CUDA" : "CPU"));
}

}  // namespace moba::kernels
