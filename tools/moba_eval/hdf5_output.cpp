#include "tools/moba_eval/hdf5_output.h"

#include <unistd.h>

#include "src/data/output_file.h"
#include "src/interop/hashed_file.h"

namespace moba::eval {
namespace {

hid_t hdf5_type(DType dtype) {
  switch (dtype) {
    case DType::f32: return H5T_NATIVE_FLOAT;
    case DType::f64: return H5T_NATIVE_DOUBLE;
    case DType::i32: return H5T_NATIVE_INT32;
    default: break;
  }
  throw Error(fmt::format("no HDF5 output of {} tensors", dtype_name(dtype)));
}

}  // namespace

Hdf5Output::Hdf5Output(const std::string& path)
    : path_(path),
      temporary_(unused_name_beside(path)),
      file_(H5Fcreate(temporary_.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT), H5Fclose) {
  if (!file_.valid()) throw Error(fmt::format("cannot create {}: does its folder exist and can it be written?", temporary_), ExitCode::io);
}

Hdf5Output::~Hdf5Output() {
  if (!file_.valid()) return;
  file_.reset();
  ::unlink(temporary_.c_str());
}

void Hdf5Output::check(bool good, const std::string& name) const {
  if (!good) throw Error(fmt::format("cannot write {} to {}: is the disk full?", name, temporary_), ExitCode::io);
}

void Hdf5Output::write(const std::string& name, const Tensor& value) {
  const Tensor host = value.to(Device{});
  const std::vector<hsize_t> sizes(host.shape().begin(), host.shape().end());
  const hdf5::Handle space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose);
  const hdf5::Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  check(space.valid() && links.valid() && H5Pset_create_intermediate_group(links.get(), 1) >= 0, name);
  const hid_t type = hdf5_type(host.dtype());
  const hdf5::Handle plist = hdf5::dataset_properties();
  const hdf5::Handle set(H5Dcreate2(file_.get(), name.c_str(), type, space.get(), links.get(), plist.get(), H5P_DEFAULT), H5Dclose);
  check(set.valid() && H5Dwrite(set.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, host.raw()) >= 0, name);
}

void Hdf5Output::attribute(const char* name, int64_t value) {
  const hdf5::Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const hdf5::Handle set(H5Acreate2(file_.get(), name, H5T_NATIVE_INT64, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  check(set.valid() && H5Awrite(set.get(), H5T_NATIVE_INT64, &value) >= 0, name);
}

void Hdf5Output::finish() {
  const bool flushed = H5Fflush(file_.get(), H5F_SCOPE_GLOBAL) >= 0;
  check(flushed, "the last bytes");
  check(file_.reset() >= 0, "the last bytes");
  rename_path(temporary_, path_);
}

}  // namespace moba::eval
