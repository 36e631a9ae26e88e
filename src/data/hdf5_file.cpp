#include "src/data/hdf5_file.h"

#include <algorithm>
#include <filesystem>

namespace moba::hdf5 {
namespace {

Handle scalar_space() { return {H5Screate(H5S_SCALAR), H5Sclose}; }

}  // namespace

Quiet::Quiet() {
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Quiet::~Quiet() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = other.id_;
    close_ = other.close_;
    other.id_ = -1;
  }
  return *this;
}

herr_t Handle::reset() {
  const herr_t result = id_ >= 0 ? close_(id_) : 0;
  id_ = -1;
  return result;
}

Reader::Reader(const std::string& path) : path_(path) {
  MOBA_CHECK(std::filesystem::exists(path), "{}: no such token dataset (make one with moba-data prepare)", path);
  file_ = {H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose};
  if (!file_.valid()) {
    throw Error(path + ": not an HDF5 file, truncated, or not readable (make it again with moba-data prepare)", ExitCode::corrupt_input);
  }
}

void Reader::fail(const char* name, const std::string& why) const {
  throw Error(fmt::format("{}: {}: {}", path_, name, why), ExitCode::corrupt_input);
}

bool Reader::has(const char* dataset) const { return H5Lexists(file_.get(), dataset, H5P_DEFAULT) > 0; }

Extent Reader::extent(const char* dataset, std::vector<size_t> element_sizes, bool is_signed) const {
  if (!has(dataset)) fail(dataset, "missing");
  const Handle set(H5Dopen2(file_.get(), dataset, H5P_DEFAULT), H5Dclose);
  if (!set.valid()) fail(dataset, "cannot be opened");
  const Handle type(H5Dget_type(set.get()), H5Tclose), space(H5Dget_space(set.get()), H5Sclose),
      plist(H5Dget_create_plist(set.get()), H5Pclose);
  if (!type.valid() || !space.valid() || !plist.valid()) fail(dataset, "its header cannot be read");

  const size_t size = H5Tget_size(type.get());
  const bool type_ok = H5Tget_class(type.get()) == H5T_INTEGER && std::ranges::count(element_sizes, size) > 0 &&
                       H5Tget_sign(type.get()) == (is_signed ? H5T_SGN_2 : H5T_SGN_NONE) &&
                       (size == 1 || H5Tget_order(type.get()) == H5T_ORDER_LE);
  if (!type_ok) fail(dataset, "has an unexpected element type");
  if (H5Sget_simple_extent_ndims(space.get()) != 1) fail(dataset, "must have one dimension");
  if (H5Pget_layout(plist.get()) != H5D_CONTIGUOUS || H5Pget_external_count(plist.get()) != 0) {
    fail(dataset, "must be stored contiguously (no chunks, compression or external files)");
  }
  Extent extent;
  extent.element_size = size;
  extent.count = H5Sget_simple_extent_npoints(space.get());
  const haddr_t offset = H5Dget_offset(set.get());
  if (extent.count <= 0 || offset == HADDR_UNDEF) fail(dataset, "is empty");
  extent.offset = static_cast<int64_t>(offset);
  const auto file_size = static_cast<int64_t>(std::filesystem::file_size(path_));
  if (extent.offset + extent.count * static_cast<int64_t>(size) > file_size)
    fail(dataset, "reaches beyond the end of the file (truncated?)");
  return extent;
}

int64_t Reader::integer(const char* attribute) const {
  const Handle attr(H5Aopen(file_.get(), attribute, H5P_DEFAULT), H5Aclose);
  if (!attr.valid()) fail(attribute, "attribute missing");
  const Handle space(H5Aget_space(attr.get()), H5Sclose);
  int64_t value = 0;
  if (H5Sget_simple_extent_npoints(space.get()) != 1 || H5Aread(attr.get(), H5T_NATIVE_INT64, &value) < 0) {
    fail(attribute, "attribute must be one integer");
  }
  return value;
}

std::string Reader::text(const char* attribute) const {
  const Handle attr(H5Aopen(file_.get(), attribute, H5P_DEFAULT), H5Aclose);
  if (!attr.valid()) fail(attribute, "attribute missing");
  const Handle type(H5Aget_type(attr.get()), H5Tclose), space(H5Aget_space(attr.get()), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1)
    fail(attribute, "attribute must be one string");
  if (H5Tis_variable_str(type.get()) > 0) {
    char* value = nullptr;
    if (H5Aread(attr.get(), type.get(), &value) < 0 || value == nullptr) fail(attribute, "attribute cannot be read");
    std::string text(value);
    H5free_memory(value);
    return text;
  }
  std::string text(H5Tget_size(type.get()), '\0');
  if (H5Aread(attr.get(), type.get(), text.data()) < 0) fail(attribute, "attribute cannot be read");
  text.resize(std::min(text.find('\0'), text.size()));
  return text;
}

Creator::Creator(const std::string& path) : path_(path) {
  file_ = {H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT), H5Fclose};
  if (!file_.valid()) fail("the file");
}

void Creator::fail(const char* name) const {
  throw Error(fmt::format("{}: {} cannot be written (is the folder writable and the disk not full?)", path_, name), ExitCode::io);
}

Handle dataset_properties() {
  Handle plist(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  if (plist.valid()) H5Pset_obj_track_times(plist.get(), false);
  return plist;
}

int64_t Creator::allocate(const char* dataset, hid_t type, int64_t count) {
  const auto size = static_cast<hsize_t>(count);
  const Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose), plist = dataset_properties();
  H5Pset_alloc_time(plist.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(plist.get(), H5D_FILL_TIME_NEVER);
  const Handle set(H5Dcreate2(file_.get(), dataset, type, space.get(), H5P_DEFAULT, plist.get(), H5P_DEFAULT), H5Dclose);
  if (!set.valid()) fail(dataset);
  const haddr_t offset = H5Dget_offset(set.get());
  if (offset == HADDR_UNDEF) fail(dataset);
  return static_cast<int64_t>(offset);
}

void Creator::integer(const char* attribute, int64_t value) {
  const Handle space = scalar_space();
  const Handle attr(H5Acreate2(file_.get(), attribute, H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!attr.valid() || H5Awrite(attr.get(), H5T_NATIVE_INT64, &value) < 0) fail(attribute);
}

void Creator::text(const char* attribute, const std::string& value) {
  const Handle space = scalar_space(), type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), std::max<size_t>(value.size(), 1));
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  const Handle attr(H5Acreate2(file_.get(), attribute, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!attr.valid() || H5Awrite(attr.get(), type.get(), value.c_str()) < 0) fail(attribute);
}

void Creator::close() {
  if (file_.reset() < 0) fail("the file");
}

}  // namespace moba::hdf5
