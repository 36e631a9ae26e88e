// TensorBoard event files with scalars: TFRecord framing around Event protocol buffers, both written by hand.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace moba {

class TensorBoardWriter {
 public:
  explicit TensorBoardWriter(const std::string& folder);  // makes a new event file; Error(io)
  ~TensorBoardWriter();
  TensorBoardWriter(const TensorBoardWriter&) = delete;
  void scalars(int64_t step, const std::vector<std::pair<std::string, double>>& values);

 private:
  void record(const std::string& event);
  std::FILE* file_ = nullptr;
  std::string path_;
};

uint32_t crc32c(const void* data, size_t bytes);  // Castagnoli; of "123456789": 0xe3069283

}  // namespace moba
