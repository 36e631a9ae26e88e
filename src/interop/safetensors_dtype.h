// Element types of safetensors files and ours.
#pragma once
#include <optional>
#include <string>

#include "kernels/common/types.h"

namespace moba {

struct FileDType {
  DType dtype = DType::f32;  // what a reader gets
  bool half = false;         // IEEE half in the file, f32 for the reader
  size_t bytes = 4;          // of one element in the file
};

constexpr const char* safetensors_dtype(DType t) {
  switch (t) {
    case DType::f32: return "F32";
    case DType::bf16: return "BF16";
    case DType::f64: return "F64";
    case DType::i32: return "I32";
    case DType::i64: return "I64";
    case DType::u8: return "U8";
    case DType::u16: return "U16";
    case DType::u32: return "U32";
  }
  return "?";
}

inline std::optional<FileDType> file_dtype(const std::string& name) {
  if (name == "F16") return FileDType{DType::f32, true, 2};
  if (name == "BOOL") return FileDType{DType::u8, false, 1};
  for (DType t : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8, DType::u16, DType::u32})
    if (name == safetensors_dtype(t)) return FileDType{t, false, dtype_size(t)};
  return std::nullopt;
}

constexpr bool is_float(DType t) { return t == DType::f32 || t == DType::bf16 || t == DType::f64; }

}  // namespace moba
