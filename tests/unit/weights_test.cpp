#include "emit/weights.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "emit/crc32.h"
#include "emit/transpose.h"
#include "support/error.h"

namespace onnx2nn::emit {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> counted(std::size_t size) {
  std::vector<std::byte> out(size);
  std::uint32_t state = 1;
  for (std::byte& b : out) {
    state = state * 1664525 + 1013904223;
    b = static_cast<std::byte>(state >> 24);
  }
  return out;
}

class Weights : public testing::Test {
 protected:
  Weights() {
    std::string name = (fs::temp_directory_path() / "onnx2nn-test-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~Weights() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  bool folder_is_empty() const { return fs::is_empty(folder_); }
  std::string contents(const std::string& name) const {
    std::ifstream in(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  static WeightEntry entry(std::string key, std::string dtype, std::vector<std::int64_t> shape) {
    WeightEntry e;
    e.key = std::move(key);
    std::size_t size = weight_item_size(dtype);
    for (const std::int64_t d : shape) size *= static_cast<std::size_t>(d);
    e.dtype = std::move(dtype);
    e.shape = std::move(shape);
    e.source = ByteSource::of_vector(counted(size));
    return e;
  }

 private:
  fs::path folder_;
};

TEST(Crc32, KnownValues) {
  const auto of = [](std::string_view text) { return crc32(std::as_bytes(std::span(text))); };
  EXPECT_EQ(of(""), 0U);
  EXPECT_EQ(of("123456789"), 0xCBF43926U);
  const auto data = counted(1000);
  const std::span<const std::byte> all(data);
  for (const std::size_t cut : {0, 1, 15, 16, 17, 500, 744, 745, 999}) {
    EXPECT_EQ(crc32(all.subspan(cut), crc32(all.first(cut))), crc32(all));
    const std::uint32_t rest = crc32(all.subspan(cut));
    EXPECT_EQ(crc32_joined(crc32(all.first(cut)), rest, all.size() - cut), crc32(all));
  }
}

TEST(Crc32, LongAndShortAgree) {
  // From 256 bytes on it goes another way, where the processor has one.
  const auto data = counted(1200);
  for (std::size_t begin = 0; begin < 17; ++begin) {
    for (std::size_t size = 240; size < 1100; size += 13) {
      const std::span<const std::byte> bytes = std::span(data).subspan(begin, size);
      std::uint32_t crc = 7;
      for (std::size_t at = 0; at < size; at += 100)
        crc = crc32(bytes.subspan(at, std::min<std::size_t>(100, size - at)), crc);
      EXPECT_EQ(crc32(bytes, 7), crc);
    }
  }
}

TEST(Transpose, EverySizeAndShape) {
  for (const std::size_t item : {1UL, 2UL, 4UL, 8UL, 16UL}) {
    for (const std::size_t rows : {1UL, 3UL, 16UL, 65UL, 130UL}) {
      for (const std::size_t columns : {1UL, 5UL, 32UL, 64UL, 131UL}) {
        const std::size_t from_stride = columns * item + 3;
        const std::size_t to_stride = rows * item + 5;
        const auto from = counted(rows * from_stride);
        std::vector<std::byte> to(columns * to_stride);
        transpose_block(from.data(), from_stride, to.data(), to_stride, rows, columns, item);
        for (std::size_t r = 0; r < rows; ++r) {
          for (std::size_t c = 0; c < columns; ++c)
            ASSERT_EQ(
                std::memcmp(&from[r * from_stride + c * item], &to[c * to_stride + r * item], item),
                0)
                << item << " " << rows << "x" << columns << " at " << r << "," << c;
        }
        for (std::size_t c = 0; c < columns; ++c) {  // and nothing between the rows
          for (std::size_t i = rows * item; i < to_stride; ++i)
            ASSERT_EQ(to[c * to_stride + i], std::byte{0});
        }
      }
    }
  }
}

TEST(WeightDtype, Names) {
  EXPECT_EQ(weight_dtype("float32"), "F32");
  EXPECT_EQ(weight_dtype("float8_e4m3fn"), "F8_E4M3");
  EXPECT_EQ(weight_dtype("int4"), "");
  EXPECT_EQ(weight_item_size("BF16"), 2U);
  EXPECT_TRUE(safetensors_has("C64"));
  EXPECT_FALSE(safetensors_has("C128"));
}

TEST_F(Weights, SafetensorsLayout) {
  std::vector<WeightEntry> entries = {entry("b", "F32", {3}), entry("a", "I64", {2}),
                                      entry("line", "F16", {32}), entry("none", "F32", {0, 4})};
  entries[0].source = {};
  entries[0].fill = [](std::span<std::byte> out) {
    std::fill(out.begin(), out.end(), std::byte{7});
  };
  EXPECT_EQ(write_safetensors(path("m.safetensors"), entries, {{"k", "v \"quoted\""}}),
            std::vector<std::string>{path("m.safetensors")});
  const std::string text = contents("m.safetensors");
  std::uint64_t size = 0;
  std::memcpy(&size, text.data(), 8);
  EXPECT_EQ((8 + size) % 64, 0U);
  const auto header = nlohmann::json::parse(text.substr(8, size));
  EXPECT_EQ(header["__metadata__"]["format"], "pt");
  EXPECT_EQ(header["__metadata__"]["k"], "v \"quoted\"");
  EXPECT_EQ(header["line"]["data_offsets"], nlohmann::json({0, 64}));
  EXPECT_EQ(header["a"]["data_offsets"], nlohmann::json({64, 80}));
  EXPECT_EQ(header["b"]["data_offsets"], nlohmann::json({80, 92}));
  EXPECT_EQ(text.size(), 8 + size + 92);
  EXPECT_EQ(text.substr(8 + size + 80), std::string(12, 7));
}

TEST_F(Weights, TransposedFromMemory) {
  WeightEntry e = entry("w", "I16", {70, 40});
  e.transpose = true;
  write_safetensors(path("m.safetensors"), std::span(&e, 1));
  const std::string text = contents("m.safetensors");
  const std::string data = text.substr(text.size() - 5600);
  std::vector<std::byte> expected(5600);
  transpose_block(e.source.bytes().data(), 140, expected.data(), 80, 40, 70, 2);
  EXPECT_EQ(std::memcmp(data.data(), expected.data(), 5600), 0);
}

TEST_F(Weights, ShardsKeepTheOrderOfTheModel) {
  std::vector<WeightEntry> entries;
  for (const char* key : {"z", "y", "x"}) entries.push_back(entry(key, "F32", {100}));
  const auto paths = write_safetensors(path("m.safetensors"), entries, {}, 900);
  ASSERT_EQ(paths.size(), 3U);
  const auto index = nlohmann::json::parse(contents("m.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], 1200);
  EXPECT_EQ(index["weight_map"]["z"], "m-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["y"], "m-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["x"], "m-00002-of-00002.safetensors");
}

TEST_F(Weights, AFailureLeavesNothing) {
  std::vector<WeightEntry> entries = {entry("a", "F32", {4}), entry("b", "F32", {4})};
  entries[1].fill = [](std::span<std::byte>) { fail("bad-model", "no value"); };
  for (const char* name : {"m.safetensors", "m.pth"}) {
    const auto write = [&] {
      if (std::string_view(name).ends_with(".pth"))
        return write_state_dict_pth(path(name), entries);
      return write_safetensors(path(name), entries, {}, 20);
    };
    EXPECT_THROW(write(), Error);
    EXPECT_TRUE(folder_is_empty());
  }
}

TEST_F(Weights, SourceThatShrinks) {
  {
    std::ofstream out(path("in"), std::ios::binary);
    out << std::string(std::size_t{6} << 20, 'x');
  }
  WeightEntry e = entry("w", "F32", {1024, 1536});
  e.source = ByteSource::of_file(InputFile::open(path("in")), 0, std::size_t{6} << 20);
  fs::resize_file(path("in"), 5000);
  for (const bool transpose : {false, true}) {
    e.transpose = transpose;
    EXPECT_THROW(write_safetensors(path("m.safetensors"), std::span(&e, 1)), Error);
    EXPECT_FALSE(fs::exists(path("m.safetensors")));
  }
}

TEST_F(Weights, WrongEntries) {
  const auto code = [&](const WeightEntry& e) -> std::string {
    try {
      write_safetensors(path("m.safetensors"), std::span(&e, 1));
    } catch (const Error& error) {
      return error.code();
    } catch (const InternalError&) {
      return "internal";
    }
    return "written";
  };
  WeightEntry e = entry("w", "F32", {2, 3});
  EXPECT_EQ(code(e), "written");
  e.shape = {2, 4};
  EXPECT_EQ(code(e), "bad-model");
  e.shape = {std::int64_t{1} << 40, std::int64_t{1} << 40};
  EXPECT_EQ(code(e), "too-large");
  e.shape = {-1};
  EXPECT_EQ(code(e), "bad-model");
  EXPECT_EQ(code(entry("bad \xff", "F32", {1})), "bad-model");
  EXPECT_EQ(code(entry("__metadata__", "F32", {1})), "bad-model");
  EXPECT_EQ(code(entry("w", "C128", {1})), "unsupported-type");
  e = entry("w", "F32", {6});
  e.transpose = true;
  EXPECT_EQ(code(e), "internal");
  e.transpose = false;
  e.alias_of = "nothing";
  EXPECT_EQ(code(e), "internal");
}

}  // namespace
}  // namespace onnx2nn::emit
