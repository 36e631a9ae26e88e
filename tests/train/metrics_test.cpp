// What a run prints and writes: console line, metrics.jsonl, TensorBoard events.
#include "src/train/metrics.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "src/train/console.h"
#include "src/train/tensorboard.h"
#include "tests/interop/scratch_folder.h"

namespace moba::test {
namespace {

std::string bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Console, StepLineIsAsPromised) {
  StepLine line;
  line.step = 10;
  line.total_steps = 1000;
  line.loss = 5.12344;
  line.grad_norm = 1.234;
  line.learning_rate = 3e-4;
  line.step_ms = 811.6;
  line.tokens_per_sec = 12345.6;
  line.mfu = 0.345;
  line.memory_bytes = 1288490189;
  line.tokens = 5242880;
  line.eta_seconds = 192;
  EXPECT_EQ(format_step(line),
            "step 00010/01000 | loss 5.1234 | grad_norm 1.23 | lr 3.00e-04 | 812 ms | 12,345 tok/s | mfu 34.5% | mem 1.2 GiB | tokens 5.2M "
            "| eta 3m12s");
}

TEST(Console, DurationsAndCounts) {
  EXPECT_EQ(format_duration(59.4), "59s");
  EXPECT_EQ(format_duration(3599), "59m59s");
  EXPECT_EQ(format_duration(7500), "2h05m");
  EXPECT_EQ(format_duration(273600), "3d04h");
  EXPECT_EQ(format_duration(1.3e12), "41,222 years");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "?");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(1.3e9), "1.3B");
  EXPECT_EQ(format_thousands(999), "999");
  EXPECT_EQ(format_thousands(1234567), "1,234,567");
}

TEST(Metrics, CutsLinesAfterTheCheckpointAndTornOnes) {
  const ScratchFolder folder;
  folder.write(
      "metrics.jsonl",
      "{\"step\":1,\"a\":1}\n{\"step\":\"two\"}\n{\"step\":2,\"a\":2}\n{\"step\":2,\"eval/loss\":3}\n{\"step\":3,\"a\":3}\n{\"step\":4,");
  {
    MetricsLog log(folder.root(), 2, false);
    log.write({{"step", 3}, {"a", std::numeric_limits<double>::quiet_NaN()}});
  }
  EXPECT_EQ(bytes_of(folder.path("metrics.jsonl")),
            "{\"step\":1,\"a\":1}\n{\"step\":2,\"a\":2}\n{\"step\":2,\"eval/loss\":3}\n{\"step\":3,\"a\":null}\n");
  MetricsLog(folder.root(), 2, false, true);  // the evaluation after step 2 comes again
  EXPECT_EQ(bytes_of(folder.path("metrics.jsonl")), "{\"step\":1,\"a\":1}\n{\"step\":2,\"a\":2}\n");
  MetricsLog(folder.root(), 0, false);
  EXPECT_EQ(bytes_of(folder.path("metrics.jsonl")), "");
}

TEST(TensorBoard, ChecksumIsCastagnoli) { EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u); }

// Reads back what the writer wrote: framing, checksums, and the fields of each event.
struct Scalar {
  int64_t step;
  std::string tag;
  float value;
};

uint64_t read_varint(const std::string& s, size_t& at) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(s.at(at++));
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return value;
  }
}

uint32_t masked(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes.data(), bytes.size());
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <class T>
T raw(const std::string& s, size_t at) {
  T value;
  std::memcpy(&value, s.data() + at, sizeof value);
  return value;
}

// Calls field(number, payload) for each field of a message; fixed-size and varint payloads come as their bytes.
template <class F>
void each_field(const std::string& message, F&& field) {
  for (size_t at = 0; at < message.size();) {
    const uint64_t key = read_varint(message, at);
    const size_t begin = at;
    size_t size = 0;
    if ((key & 7) == 0) {
      read_varint(message, at);
      size = at - begin;
      at = begin;
    } else if ((key & 7) == 1) {
      size = 8;
    } else if ((key & 7) == 5) {
      size = 4;
    } else {
      size = read_varint(message, at);
    }
    field(static_cast<int>(key >> 3), message.substr(at, size));
    at += size;
  }
}

std::vector<Scalar> read_events(const std::string& file) {
  std::vector<Scalar> out;
  for (size_t at = 0; at < file.size();) {
    const auto length = raw<uint64_t>(file, at);
    EXPECT_EQ(raw<uint32_t>(file, at + 8), masked(file.substr(at, 8)));
    const std::string event = file.substr(at + 12, length);
    EXPECT_EQ(raw<uint32_t>(file, at + 12 + length), masked(event));
    at += 16 + length;
    int64_t step = 0;
    each_field(event, [&](int number, const std::string& payload) {
      size_t p = 0;
      if (number == 2) step = static_cast<int64_t>(read_varint(payload, p));
      if (number != 5) return;
      each_field(payload, [&](int, const std::string& value) {
        Scalar s{step, "", 0};
        each_field(value, [&](int field, const std::string& content) {
          if (field == 1) s.tag = content;
          if (field == 2) s.value = raw<float>(content, 0);
        });
        out.push_back(s);
      });
    });
  }
  return out;
}

TEST(TensorBoard, EventsReadBack) {
  const ScratchFolder folder;
  {
    MetricsLog log(folder.root(), 0, true);
    log.write({{"step", 1}, {"train/loss", 2.5}, {"attention/type", "moba"}});
    log.write({{"step", 300}, {"eval/loss", 1.25}, {"eval/position_loss", {3.0, 4.0}}});
  }
  const std::filesystem::path file = std::filesystem::directory_iterator(folder.path("tb"))->path();
  EXPECT_TRUE(file.filename().string().starts_with("events.out.tfevents.")) << file;
  const std::vector<Scalar> scalars = read_events(bytes_of(file.string()));
  ASSERT_EQ(scalars.size(), 4u);
  EXPECT_EQ(scalars[0].tag, "train/loss");
  EXPECT_EQ(scalars[0].step, 1);
  EXPECT_EQ(scalars[0].value, 2.5f);
  EXPECT_EQ(scalars[1].tag, "eval/loss");
  EXPECT_EQ(scalars[1].step, 300);
  EXPECT_EQ(scalars[2].tag, "eval/position_loss/00");
  EXPECT_EQ(scalars[3].tag, "eval/position_loss/01");
  EXPECT_EQ(scalars[3].value, 4.0f);
}

}  // namespace
}  // namespace moba::test
