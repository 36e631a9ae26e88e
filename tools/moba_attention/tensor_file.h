// The files of moba-attention: tensors and attributes of the operation in, results out. Layout: docs of the program (--help).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "src/data/hdf5_file.h"

namespace moba {

struct FileTensor {
  std::vector<hsize_t> shape;
  std::vector<float> values;
  int64_t dim(size_t i) const { return static_cast<int64_t>(shape[i]); }
};

// Every failure is an Error that names the file and the object: exit code 2 for a file that does not exist, 3 for one that cannot
// be used.
class TensorReader {
 public:
  explicit TensorReader(const std::string& path);
  bool has(const char* dataset) const;
  bool has_attribute(const char* name) const;
  FileTensor tensor(const char* dataset, int rank) const;    // floating point, as fp32
  std::vector<int32_t> integers(const char* dataset) const;  // one row
  int64_t integer_attribute(const char* name) const;
  double real_attribute(const char* name) const;
  std::string text_attribute(const char* name) const;

 private:
  hdf5::Handle open(const char* dataset, H5T_class_t type, int rank, std::vector<hsize_t>& shape) const;
  hdf5::Handle attribute(const char* name) const;
  [[noreturn]] void fail(const char* name, const std::string& why) const;

  hdf5::Quiet quiet_;
  std::string path_;
  hdf5::Handle file_;
};

// Writes under a temporary name beside `path`; finish() renames. Without finish() nothing is left behind.
class TensorWriter {
 public:
  explicit TensorWriter(const std::string& path);
  ~TensorWriter();
  TensorWriter(const TensorWriter&) = delete;
  void write(const char* dataset, const std::vector<hsize_t>& shape, const std::vector<float>& values);
  void write(const char* dataset, const std::vector<hsize_t>& shape, const std::vector<int32_t>& values);
  void finish();

 private:
  void write(const char* dataset, const std::vector<hsize_t>& shape, hid_t stored, hid_t memory, const void* values);
  [[noreturn]] void fail(const std::string& what) const;

  hdf5::Quiet quiet_;
  std::string path_, temporary_;
  hdf5::Handle file_;
};

}  // namespace moba
