// safetensors files: 8-byte little-endian header length, JSON header, tensors back to back. Reading maps the file and checks
// every offset; writing streams tensor by tensor to a temporary name, fsyncs and renames.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "src/autograd/tensor.h"
#include "src/interop/hashed_file.h"

namespace moba {

struct TensorEntry {
  DType dtype = DType::f32;  // F32, BF16, F64, I32, I64, U8 ... (F16 is converted on read and shows as f32)
  Shape shape;
};

class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);  // Error(corrupt_input) with the reason
  ~SafetensorsReader();
  SafetensorsReader(SafetensorsReader&&) noexcept;
  const std::string& path() const;
  const std::map<std::string, TensorEntry>& entries() const;
  const std::map<std::string, std::string>& metadata() const;
  void read(const std::string& name, const Tensor& into) const;  // converts float dtypes; shapes must match
  std::string_view bytes(const std::string& name) const;         // as they lie in the file

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The tensors of a Hugging Face directory: model.safetensors, or the shards named by model.safetensors.index.json.
class WeightFiles {
 public:
  explicit WeightFiles(const std::string& dir);
  const std::map<std::string, TensorEntry>& entries() const { return entries_; }
  void read(const std::string& name, const Tensor& into) const { file_of(name).read(name, into); }
  std::string_view bytes(const std::string& name) const { return file_of(name).bytes(name); }

 private:
  const SafetensorsReader& file_of(const std::string& name) const;
  std::vector<SafetensorsReader> files_;
  std::map<std::string, TensorEntry> entries_;
  std::map<std::string, size_t> file_index_;
};

struct TensorToWrite {
  std::string name;
  Tensor value;
  DType as = DType::f32;  // converted on the way out, piece by piece
};
FileDigest write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                             const std::map<std::string, std::string>& metadata);

}  // namespace moba
