#include <algorithm>
#include <nlohmann/json.hpp>

#include "src/interop/safetensors.h"
#include "src/interop/safetensors_dtype.h"

namespace moba {
namespace {

// The data section starts at a multiple of this, so that a mapped file can be used in place.
constexpr size_t kAlignment = 64;
// Elements converted and copied from the device at a time.
constexpr int64_t kPieceElements = int64_t{1} << 20;

// Larger elements first: back to back, every tensor then starts at a multiple of its element size.
std::vector<const TensorToWrite*> in_file_order(const std::vector<TensorToWrite>& tensors) {
  std::vector<const TensorToWrite*> order;
  for (const TensorToWrite& t : tensors) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(), [](auto* a, auto* b) { return dtype_size(a->as) > dtype_size(b->as); });
  return order;
}

std::string header_of(const std::vector<const TensorToWrite*>& order, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const TensorToWrite* t : order) {
    MOBA_ASSERT(!header.contains(t->name) && t->value.defined());
    const int64_t end = offset + t->value.numel() * static_cast<int64_t>(dtype_size(t->as));
    header[t->name] = {{"dtype", safetensors_dtype(t->as)}, {"shape", t->value.shape()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  const size_t used = sizeof(uint64_t) + text.size();
  text.append((kAlignment - used % kAlignment) % kAlignment, ' ');
  return text;
}

}  // namespace

FileDigest write_safetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                             const std::map<std::string, std::string>& metadata) {
  const auto order = in_file_order(tensors);
  const std::string header = header_of(order, metadata);
  const uint64_t header_bytes = header.size();
  HashedFileWriter file(path);
  file.append(&header_bytes, sizeof header_bytes);
  file.append(header.data(), header.size());
  for (const TensorToWrite* t : order) {
    const int64_t count = t->value.numel();
    if (count == 0) continue;
    const Tensor flat = t->value.reshape({count});
    for (int64_t begin = 0; begin < count; begin += kPieceElements) {
      const Tensor piece = flat.rows(begin, std::min(begin + kPieceElements, count)).to(t->as).to(Device{});
      file.append(piece.raw(), static_cast<size_t>(piece.nbytes()));
    }
  }
  return file.commit();
}

}  // namespace moba
