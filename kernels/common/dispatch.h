// Which instruction-set variant runs. Every fast CPU kernel exists in up to four variants compiled from one template;
// `reference` means the plain loops. MOBA_KERNEL=reference|sse|avx2|avx512|avx512_bf16 forces one (an Error if this machine
// cannot run it).
#pragma once
#include <string>
#include <vector>

#include "kernels/common/types.h"

namespace moba::kernels {

enum class Isa : uint8_t { reference, sse, avx2, avx512, avx512_bf16 };

const char* isa_name(Isa isa);
Isa isa_from_name(const std::string& name);  // Error if unknown
bool cpu_supports(Isa isa);
std::vector<Isa> supported_isas();  // ascending, always starts with reference, sse
Isa active_isa();                   // best supported, or MOBA_KERNEL
void set_active_isa(Isa isa);       // Error if unsupported; for tests, moba_naive and benches
bool has_bf16_products();           // the active variant multiplies bf16 directly

// Where a kernel runs. CPU kernels ignore `handle`; CUDA launchers cast it to cudaStream_t.
struct Stream {
  DeviceType device = DeviceType::cpu;
  int index = 0;
  void* handle = nullptr;
};

// Throws: "<op> has no CUDA kernel in this build" - used by ops whose CUDA variant is not built.
[[noreturn]] void throw_no_device_kernel(const char* op, const Stream& stream);

}  // namespace moba::kernels
