#include "tools/moba_attention/tensor_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "src/data/output_file.h"

namespace moba {

using hdf5::Handle;

TensorReader::TensorReader(const std::string& path) : path_(path) {
  file_ = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (file_.valid()) return;
  MOBA_CHECK(std::filesystem::exists(path), "{}: no such file; make it with q, k, v and cu_seqlens (moba-attention --help)", path);
  throw Error(fmt::format("{}: not an HDF5 file, or not readable", path), ExitCode::corrupt_input);
}

void TensorReader::fail(const char* name, const std::string& why) const {
  throw Error(fmt::format("{}: {}: {}", path_, name, why), ExitCode::corrupt_input);
}

bool TensorReader::has(const char* dataset) const { return H5Lexists(file_.get(), dataset, H5P_DEFAULT) > 0; }
bool TensorReader::has_attribute(const char* name) const { return H5Aexists(file_.get(), name) > 0; }

Handle TensorReader::open(const char* dataset, H5T_class_t type, int rank, std::vector<hsize_t>& shape) const {
  if (!has(dataset)) fail(dataset, "this dataset is missing");
  Handle data(H5Dopen2(file_.get(), dataset, H5P_DEFAULT), H5Dclose);
  if (!data.valid()) fail(dataset, "is not a dataset");
  const Handle stored(H5Dget_type(data.get()), H5Tclose), space(H5Dget_space(data.get()), H5Sclose);
  if (H5Tget_class(stored.get()) != type) fail(dataset, type == H5T_FLOAT ? "must hold floating-point numbers" : "must hold integers");
  const int got = H5Sget_simple_extent_ndims(space.get());
  if (got != rank) fail(dataset, fmt::format("has {} dimensions; {} are needed", got, rank));
  shape.resize(static_cast<size_t>(rank));
  H5Sget_simple_extent_dims(space.get(), shape.data(), nullptr);
  return data;
}

FileTensor TensorReader::tensor(const char* dataset, int rank) const {
  FileTensor result;
  const Handle data = open(dataset, H5T_FLOAT, rank, result.shape);
  size_t count = 1;
  for (const hsize_t n : result.shape) {
    // The header alone can say so; a product that wraps around would make a buffer too small for what is read.
    if (n > 0 && count > std::vector<float>().max_size() / n) fail(dataset, "has more elements than memory can hold");
    count *= n;
  }
  result.values.resize(count);
  if (count > 0 && H5Dread(data.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, result.values.data()) < 0)
    fail(dataset, "cannot be read (damaged file?)");
  return result;
}

std::vector<int32_t> TensorReader::integers(const char* dataset) const {
  std::vector<hsize_t> shape;
  const Handle data = open(dataset, H5T_INTEGER, 1, shape);
  std::vector<int32_t> result(shape[0]);
  if (!result.empty() && H5Dread(data.get(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, result.data()) < 0)
    fail(dataset, "cannot be read (damaged file?)");
  return result;
}

Handle TensorReader::attribute(const char* name) const {
  if (!has_attribute(name)) fail(name, "this attribute of / is missing");
  Handle result(H5Aopen(file_.get(), name, H5P_DEFAULT), H5Aclose);
  const Handle space(H5Aget_space(result.get()), H5Sclose);
  if (!result.valid() || H5Sget_simple_extent_npoints(space.get()) != 1) fail(name, "must be a single value");
  return result;
}

int64_t TensorReader::integer_attribute(const char* name) const {
  const Handle data = attribute(name), stored(H5Aget_type(data.get()), H5Tclose);
  int64_t value = 0;
  if (H5Tget_class(stored.get()) != H5T_INTEGER || H5Aread(data.get(), H5T_NATIVE_INT64, &value) < 0) fail(name, "must be an integer");
  return value;
}

double TensorReader::real_attribute(const char* name) const {
  const Handle data = attribute(name), stored(H5Aget_type(data.get()), H5Tclose);
  const H5T_class_t type = H5Tget_class(stored.get());
  double value = 0;
  if ((type != H5T_INTEGER && type != H5T_FLOAT) || H5Aread(data.get(), H5T_NATIVE_DOUBLE, &value) < 0) fail(name, "must be a number");
  return value;
}

std::string TensorReader::text_attribute(const char* name) const {
  const Handle data = attribute(name), stored(H5Aget_type(data.get()), H5Tclose);
  if (H5Tget_class(stored.get()) != H5T_STRING) fail(name, "must be a string");
  if (H5Tis_variable_str(stored.get()) > 0) {
    char* text = nullptr;
    if (H5Aread(data.get(), stored.get(), &text) < 0 || text == nullptr) fail(name, "cannot be read");
    std::string result = text;
    H5free_memory(text);
    return result;
  }
  std::string result(H5Tget_size(stored.get()), '\0');
  if (H5Aread(data.get(), stored.get(), result.data()) < 0) fail(name, "cannot be read");
  return result.c_str();  // up to the padding
}

TensorWriter::TensorWriter(const std::string& path) : path_(path), temporary_(unused_name_beside(path)) {
  errno = 0;
  file_ = Handle(H5Fcreate(temporary_.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  if (!file_.valid()) fail("cannot create it");
}

TensorWriter::~TensorWriter() {
  file_.reset();
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void TensorWriter::fail(const std::string& what) const {
  throw Error(fmt::format("{}: {}{}{}", path_, what, errno ? ": " : "", errno ? std::strerror(errno) : ""), ExitCode::io);
}

void TensorWriter::write(const char* dataset, const std::vector<hsize_t>& shape, hid_t stored, hid_t memory, const void* values) {
  errno = 0;
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
  const Handle plist = hdf5::dataset_properties();
  Handle data(H5Dcreate2(file_.get(), dataset, stored, space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT), H5Dclose);
  bool empty = false;
  for (const hsize_t n : shape) empty = empty || n == 0;
  if (!data.valid() || (!empty && H5Dwrite(data.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0) || data.reset() < 0)
    fail(fmt::format("cannot write {}", dataset));
}

void TensorWriter::write(const char* dataset, const std::vector<hsize_t>& shape, const std::vector<float>& values) {
  write(dataset, shape, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, values.data());
}

void TensorWriter::write(const char* dataset, const std::vector<hsize_t>& shape, const std::vector<int32_t>& values) {
  write(dataset, shape, H5T_STD_I32LE, H5T_NATIVE_INT32, values.data());
}

void TensorWriter::finish() {
  errno = 0;
  if (H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) < 0 || file_.reset() < 0) fail("cannot be written to the end");
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) fail("cannot be renamed into place");
  temporary_.clear();
}

}  // namespace moba
