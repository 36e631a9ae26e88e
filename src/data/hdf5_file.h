// The few HDF5 calls that token datasets need: handles that close themselves, no messages on stderr, Error on every failure.
#pragma once
#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/check.h"

namespace moba::hdf5 {

// Silences HDF5's own error printing on this thread while it lives.
class Quiet {
 public:
  Quiet();
  ~Quiet();
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

class Handle {
 public:
  Handle() = default;
  Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(other.id_), close_(other.close_) { other.id_ = -1; }
  Handle& operator=(Handle&& other) noexcept;
  ~Handle() { reset(); }
  hid_t get() const { return id_; }
  bool valid() const { return id_ >= 0; }
  herr_t reset();  // closes; the result of the close call

 private:
  hid_t id_ = -1;
  herr_t (*close_)(hid_t) = nullptr;
};

// How datasets are created: without the time, so that the same content gives the same bytes.
Handle dataset_properties();

// Where a contiguous dataset's bytes lie in the file.
struct Extent {
  int64_t count = 0;        // elements
  int64_t offset = 0;       // byte position in the file
  size_t element_size = 0;  // bytes
};

// Reading: every failure is Error(corrupt_input) with the path and the object's name.
class Reader {
 public:
  explicit Reader(const std::string& path);
  bool has(const char* dataset) const;
  // One row of little-endian unsigned integers of one of the given sizes, or (is_signed) int64.
  Extent extent(const char* dataset, std::vector<size_t> element_sizes, bool is_signed = false) const;
  int64_t integer(const char* attribute) const;
  std::string text(const char* attribute) const;

 private:
  [[noreturn]] void fail(const char* name, const std::string& why) const;

  Quiet quiet_;  // first, so that it outlives the handles
  std::string path_;
  Handle file_;
};

// Writing headers only: contiguous datasets are allocated without data, whose bytes the caller writes at `offset` after close().
// (A full disk then shows up in the caller's own write, not inside HDF5.)
class Creator {
 public:
  explicit Creator(const std::string& path);
  int64_t allocate(const char* dataset, hid_t type, int64_t count);  // byte offset in the file
  void integer(const char* attribute, int64_t value);
  void text(const char* attribute, const std::string& value);
  void close();

 private:
  [[noreturn]] void fail(const char* name) const;

  Quiet quiet_;
  std::string path_;
  Handle file_;
};

}  // namespace moba::hdf5
