// An HDF5 file of whole tensors, written under a temporary name and renamed when complete.
#pragma once
#include <string>

#include "src/autograd/tensor.h"
#include "src/data/hdf5_file.h"

namespace moba::eval {

class Hdf5Output {
 public:
  explicit Hdf5Output(const std::string& path);
  ~Hdf5Output();                                             // removes the temporary file unless finish() was reached
  void write(const std::string& name, const Tensor& value);  // f32, f64, i32; groups in the name are made
  void attribute(const char* name, int64_t value);
  void finish();

 private:
  void check(bool good, const std::string& name) const;

  hdf5::Quiet quiet_;
  std::string path_, temporary_;
  hdf5::Handle file_;
};

}  // namespace moba::eval
