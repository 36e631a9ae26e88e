// safetensors files: what is written is read back bit for bit, and no damaged file is believed.
#include "src/interop/safetensors.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "tests/interop/scratch_folder.h"
#include "tests/support/compare.h"

namespace moba::test {
namespace {

Tensor ramp(Shape shape, DType dtype, double start) {
  const Tensor t = Tensor::empty(shape, DType::f32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(start + 0.37 * static_cast<double>(i));
  return t.to(dtype);
}

// A file as text: header (any bytes) and data.
std::string file_of(const std::string& header, const std::string& data) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), sizeof length);
  return file + header + data;
}

// Message of the Error that opening the file gives; empty if it opens.
std::string complaint(const std::string& path) {
  try {
    SafetensorsReader reader(path);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::corrupt_input);
    return error.what();
  }
  return {};
}

TEST(Safetensors, RoundTripsEveryDtypeAndShape) {
  ScratchFolder folder;
  const std::vector<TensorToWrite> tensors = {
      {"a.weight", ramp({3, 5}, DType::f32, -1), DType::f32},     {"b", ramp({7}, DType::bf16, 2), DType::bf16},
      {"c", ramp({2, 2, 2}, DType::f64, 1e9), DType::f64},        {"scalar", Tensor::full({}, 3, DType::f32), DType::f32},
      {"none", Tensor::empty({0, 4}, DType::f32), DType::f32},    {"ids", Tensor::from<int32_t>({1, -2, 3}, {3}), DType::i32},
      {"bytes", Tensor::from<uint8_t>({9, 8, 7}, {3}), DType::u8}};
  write_safetensors(folder.path("x.safetensors"), tensors, {{"format", "pt"}});
  const SafetensorsReader reader(folder.path("x.safetensors"));
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  ASSERT_EQ(reader.entries().size(), tensors.size());
  for (const TensorToWrite& t : tensors) {
    ASSERT_TRUE(reader.entries().contains(t.name));
    const Tensor back = Tensor::empty(t.value.shape(), t.as);
    reader.read(t.name, back);
    EXPECT_TRUE(same_bits(t.name, back.raw(), t.value.raw(), static_cast<size_t>(back.nbytes())));
  }
  EXPECT_FALSE(std::filesystem::exists(folder.path("x.safetensors.tmp")));
}

TEST(Safetensors, TensorsStartAligned) {
  ScratchFolder folder;
  write_safetensors(folder.path("x"), {{"b", ramp({3}, DType::bf16, 0), DType::bf16}, {"a", ramp({3}, DType::f64, 0), DType::f64}}, {});
  const SafetensorsReader reader(folder.path("x"));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(reader.bytes("a").data()) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(reader.bytes("b").data()) % 2, 0u);
}

TEST(Safetensors, ConvertsInPiecesAcrossTheirBorders) {
  ScratchFolder folder;
  const int64_t count = (int64_t{1} << 20) * 2 + 13;
  const Tensor values = ramp({count}, DType::f32, -3);
  write_safetensors(folder.path("x"), {{"w", values, DType::bf16}}, {});
  const Tensor back = Tensor::empty({count}, DType::f32);
  SafetensorsReader(folder.path("x")).read("w", back);
  const Tensor want = values.to(DType::bf16).to(DType::f32);
  EXPECT_TRUE(same_bits("w", back.raw(), want.raw(), static_cast<size_t>(back.nbytes())));
}

TEST(Safetensors, WidensHalves) {
  ScratchFolder folder;
  // 1, -2, smallest subnormal, largest, infinity
  const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00};
  const std::string data(reinterpret_cast<const char*>(halves), sizeof halves);
  folder.write("x", file_of(R"({"h":{"dtype":"F16","shape":[5],"data_offsets":[0,10]}})", data));
  const Tensor got = Tensor::empty({5}, DType::f32);
  SafetensorsReader(folder.path("x")).read("h", got);
  const std::vector<float> want = {1, -2, 5.9604645e-8f, 65504, INFINITY};
  EXPECT_EQ(got.to_vector<float>(), want);
}

TEST(Safetensors, RefusesAnotherShapeOrKind) {
  ScratchFolder folder;
  write_safetensors(folder.path("x"), {{"w", ramp({2, 3}, DType::f32, 0), DType::f32}}, {});
  const SafetensorsReader reader(folder.path("x"));
  EXPECT_THROW(reader.read("w", Tensor::empty({3, 2}, DType::f32)), Error);
  EXPECT_THROW(reader.read("w", Tensor::empty({2, 3}, DType::i32)), Error);
  EXPECT_THROW(reader.read("v", Tensor::empty({2, 3}, DType::f32)), Error);
}

struct Damage {
  const char* what;
  std::string header, data, says;
};

TEST(Safetensors, NamesTheReasonOfEveryDamage) {
  const std::string eight(8, 'x'), four(4, 'x');
  const std::vector<Damage> cases = {
      {"no JSON", "{\"w\": [", "", "not JSON"},
      {"a list", "[]", "", "not a JSON object"},
      {"bytes behind", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", eight, "the tensors end at 4"},
      {"truncated data", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", four, "truncated"},
      {"overlap", R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})", eight,
       "overlap"},
      {"hole", R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})", eight,
       "hole"},
      {"reversed", R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", eight, "lies at"},
      {"size of shape", R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", eight, "needs 12 bytes"},
      {"negative", R"({"w":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", eight, "shape holds -2"},
      {"fraction", R"({"w":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", eight, "shape holds 2.0"},
      {"overflow", R"({"w":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}})", eight, "overflows"},
      {"dtype", R"({"w":{"dtype":"F7","shape":[2],"data_offsets":[0,8]}})", eight, "F7"},
      {"no dtype", R"({"w":{"shape":[2],"data_offsets":[0,8]}})", eight, "no dtype"},
      {"no offsets", R"({"w":{"dtype":"F32","shape":[2]}})", eight, "data_offsets"},
      {"three offsets", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}})", eight, "3 data_offsets"},
      {"twice", R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", eight,
       "twice"},
      {"metadata", R"({"__metadata__":{"a":1},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", eight, "__metadata__"},
      {"a number as tensor", R"({"w":7})", "", "no dtype"}};
  ScratchFolder folder;
  for (const Damage& damage : cases) {
    folder.write("x", file_of(damage.header, damage.data));
    EXPECT_NE(complaint(folder.path("x")).find(damage.says), std::string::npos) << damage.what << ": " << complaint(folder.path("x"));
  }
  folder.write("x", "");
  EXPECT_NE(complaint(folder.path("x")).find("0 bytes"), std::string::npos);
  folder.write("x", std::string(8, '\xff'));
  EXPECT_NE(complaint(folder.path("x")).find("header claims"), std::string::npos);
  EXPECT_NE(complaint(folder.path("absent")).find("cannot open"), std::string::npos);
  EXPECT_NE(complaint(folder.path("")).find("not a regular file"), std::string::npos);
}

// Random bytes changed, cut or added in the header: an Error or a layout that is consistent, never a read outside the file.
TEST(Safetensors, SurvivesRandomDamage) {
  ScratchFolder folder;
  write_safetensors(folder.path("good"), {{"a", ramp({4, 4}, DType::f32, 0), DType::f32}, {"b", ramp({9}, DType::bf16, 0), DType::bf16}},
                    {{"format", "pt"}});
  const std::string good = read_whole_file(folder.path("good"));
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string bad = good;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits) bad[random() % bad.size()] = static_cast<char>(random());
    if (random() % 4 == 0) bad.resize(random() % bad.size());
    folder.write("bad", bad);
    try {
      const SafetensorsReader reader(folder.path("bad"));
      for (const auto& [name, entry] : reader.entries()) reader.read(name, Tensor::empty(entry.shape, entry.dtype));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::corrupt_input);
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(WeightFiles, ReadsShards) {
  ScratchFolder folder;
  const Tensor a = ramp({4}, DType::f32, 1), b = ramp({2, 2}, DType::f32, 5);
  write_safetensors(folder.path("model-00001-of-00002.safetensors"), {{"a", a, DType::f32}}, {});
  write_safetensors(folder.path("model-00002-of-00002.safetensors"), {{"b", b, DType::f32}}, {});
  const std::string index = folder.path("model.safetensors.index.json");
  folder.write("model.safetensors.index.json",
               R"({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  const Tensor back = Tensor::empty({2, 2}, DType::f32);
  WeightFiles(folder.path("")).read("b", back);
  EXPECT_EQ(back.to_vector<float>(), b.to_vector<float>());

  folder.write("model.safetensors.index.json", R"({"weight_map": {"c": "model-00001-of-00002.safetensors"}})");
  EXPECT_THROW(WeightFiles(folder.path("")), Error);
  folder.write("model.safetensors.index.json", R"({"weight_map": {"a": "../secret"}})");
  EXPECT_THROW(WeightFiles(folder.path("")), Error);
  folder.write("model.safetensors.index.json", R"({"weight_map": [)");
  EXPECT_THROW(WeightFiles(folder.path("")), Error);
  std::filesystem::remove(index);
  EXPECT_THROW(WeightFiles(folder.path("")), Error);
}

TEST(HashedFile, DigestsAreThoseOfTheFile) {
  ScratchFolder folder;
  EXPECT_EQ(write_hashed_file(folder.path("abc"), "abc").sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  std::string large(3'000'001, 'q');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31);
  HashedFileWriter writer(folder.path("large"));
  writer.append(large.data(), 1000);
  writer.append(large.data() + 1000, 2'000'000);
  writer.append(large.data() + 2'001'000, large.size() - 2'001'000);
  const FileDigest written = writer.commit();
  EXPECT_EQ(written.xxh3, hash_file(folder.path("large")).xxh3);
  EXPECT_EQ(written.bytes, 3'000'001);
  EXPECT_EQ(written.sha256, write_hashed_file(folder.path("again"), large).sha256);
  EXPECT_EQ(read_whole_file(folder.path("large")), large);
}

TEST(HashedFile, AbandonedFilesLeaveNothing) {
  ScratchFolder folder;
  folder.write("x", "old");
  {
    HashedFileWriter writer(folder.path("x"));
    writer.append("new", 3);
  }
  EXPECT_EQ(read_whole_file(folder.path("x")), "old");
  EXPECT_FALSE(std::filesystem::exists(folder.path("x.tmp")));
  try {
    write_hashed_file("/dev/full/x", "a");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
  }
}

}  // namespace
}  // namespace moba::test
