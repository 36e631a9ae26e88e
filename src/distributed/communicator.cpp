#include "src/distributed/communicator.h"

#include <cstring>

namespace moba {

// Bytes travel as i32, eight bytes' worth of length first.
std::vector<std::string> Communicator::all_gather_strings(const std::string& mine, const char* what) {
  const auto ranks = static_cast<size_t>(size());
  const Device device = this->device();
  const Tensor length = Tensor::from<int64_t>({static_cast<int64_t>(mine.size())}, {1}).to(device);
  const Tensor lengths = Tensor::empty({size()}, DType::i64, device);
  all_gather(length, lengths, what).wait();
  const std::vector<int64_t> bytes = lengths.to(Device{}).to_vector<int64_t>();
  int64_t longest = 0;
  for (int64_t b : bytes) longest = std::max(longest, b);
  const int64_t words = (longest + 3) / 4;
  std::vector<int32_t> padded(static_cast<size_t>(words));
  std::memcpy(padded.data(), mine.data(), mine.size());
  const Tensor all = Tensor::empty({size() * words}, DType::i32, device);
  all_gather(Tensor::from(padded, {words}).to(device), all, what).wait();
  const std::vector<int32_t> values = all.to(Device{}).to_vector<int32_t>();
  std::vector<std::string> result(ranks);
  for (size_t r = 0; r < ranks; ++r)
    result[r].assign(reinterpret_cast<const char*>(values.data() + r * static_cast<size_t>(words)), static_cast<size_t>(bytes[r]));
  return result;
}

}  // namespace moba
