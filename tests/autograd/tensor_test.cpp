// Tensor, storage and the caching allocator.
#include "src/autograd/tensor.h"

#include <sys/mman.h>

#include "src/autograd/allocator.h"
#include "src/autograd/device.h"
#include "tests/support/compare.h"

namespace moba::test {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

Tensor bytes(int64_t n) { return Tensor::empty({n}, DType::u8); }

TEST(Tensor, ShapesAndViews) {
  const Tensor t = Tensor::from(std::vector<float>{0, 1, 2, 3, 4, 5}, {3, 2});
  EXPECT_EQ(t.size(-1), 2);
  EXPECT_EQ(t.rows(1, 3).to_vector<float>(), (std::vector<float>{2, 3, 4, 5}));
  EXPECT_EQ(t.rows(1, 3).rows(1, 2).item(), 4);
  EXPECT_EQ(t.reshape({-1, 3}).shape(), (Shape{2, 3}));
  EXPECT_EQ(t.reshape({6}).storage(), t.storage());
  EXPECT_NE(t.clone().storage(), t.storage());
  EXPECT_THROW(t.reshape({4}), Error);
  EXPECT_THROW(t.reshape({4, -1}), Error);
  EXPECT_EQ(to_string(t.shape()), "[3, 2]");
  t.rows(0, 1).fill(9);
  EXPECT_EQ(t.to_vector<float>(), (std::vector<float>{9, 9, 2, 3, 4, 5}));
}

TEST(Tensor, EmptyTensors) {
  const Tensor t = Tensor::zeros({0, 4}, DType::f32);
  EXPECT_TRUE(t.defined());
  EXPECT_EQ(t.numel(), 0);
  EXPECT_EQ(t.reshape({-1, 4}).shape(), (Shape{0, 4}));
  EXPECT_EQ(t.rows(0, 0).numel(), 0);
  EXPECT_TRUE(t.clone().to(DType::bf16).to_vector<bf16>().empty());
}

TEST(Tensor, ConversionAndItem) {
  const Tensor t = Tensor::from(std::vector<float>{1.00390625f, -2, 1e30f}, {3});
  EXPECT_EQ(t.to(DType::bf16).to(DType::f64).item(0), 1.0);  // halfway, to even
  EXPECT_EQ(t.to(DType::f64).item(2), static_cast<double>(1e30f));
  EXPECT_EQ(t.to(DType::f32).storage(), t.storage());
  for (DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64, DType::u8, DType::u16, DType::u32}) {
    EXPECT_EQ(Tensor::full({5}, 7, dtype).item(4), 7) << dtype_name(dtype);
    EXPECT_EQ(Tensor::zeros({5}, dtype).item(4), 0) << dtype_name(dtype);
  }
  EXPECT_THROW(t.to(DType::i32), Error);
}

TEST(Tensor, CudaIsRefusedWhereThereIsNone) {
  if (cuda_backend().count() > 0) GTEST_SKIP() << "this machine has a CUDA device";
  EXPECT_THROW(Tensor::empty({1}, DType::f32, {DeviceType::cuda, 0}), Error);
}

TEST(Allocator, AlignsEverySize) {
  for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{63}, int64_t{65}, int64_t{1000}, kMiB - 1, kMiB, 3 * kMiB + 1}) {
    const Tensor t = bytes(n);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(t.raw()) % 64, 0u) << n;
    t.fill(1);
  }
}

TEST(Allocator, ReusesFreedBlocksOfAboutTheSize) {
  release_cached_memory();
  const int64_t reserved = memory_stats().reserved;
  const void* first = bytes(10 * kMiB).raw();
  const int64_t with_block = memory_stats().reserved;
  EXPECT_GE(with_block, reserved + 10 * kMiB);
  EXPECT_EQ(bytes(10 * kMiB - 5000).raw(), first) << "a little smaller fits";
  const Tensor small = bytes(2 * kMiB);
  EXPECT_NE(small.raw(), first) << "a much smaller one would waste the block";
  release_cached_memory();
  EXPECT_LE(memory_stats().reserved, reserved + 3 * kMiB);
}

TEST(Allocator, CountsWhatWasAskedFor) {
  const MemoryStats before = memory_stats();
  reset_peak_memory();
  {
    const Tensor a = bytes(1000), b = bytes(3 * kMiB + 1);
    EXPECT_EQ(memory_stats().allocated, before.allocated + 1000 + 3 * kMiB + 1);
  }
  EXPECT_EQ(memory_stats().allocated, before.allocated);
  EXPECT_EQ(memory_stats().peak_allocated, before.allocated + 1000 + 3 * kMiB + 1);
}

// Sizes that never repeat: dead blocks must go back to the system.
TEST(Allocator, GrowingSizesDoNotPileUp) {
  release_cached_memory();
  reset_peak_memory();
  const int64_t live = memory_stats().reserved;
  for (int64_t n = 40; n <= 120; n += 7) bytes(n * kMiB);
  EXPECT_LE(memory_stats().peak_reserved, live + 200 * kMiB);
  release_cached_memory();
}

TEST(Allocator, ReleasedMemoryIsUnmapped) {
  void* data;
  {
    const Tensor t = bytes(8 * kMiB);
    t.fill(1);
    data = t.raw();
  }
  release_cached_memory();
  EXPECT_NE(msync(data, 4096, MS_ASYNC), 0) << "the pages are still mapped";
}

TEST(Allocator, PoisonMakesFreshMemoryNaN) {
  set_poison_fresh_memory(true);
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    Tensor::zeros({100}, dtype);
    EXPECT_TRUE(std::isnan(Tensor::empty({100}, dtype).item(99))) << dtype_name(dtype);
  }
  set_poison_fresh_memory(false);
}

}  // namespace
}  // namespace moba::test
