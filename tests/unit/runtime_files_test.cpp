// What is compiled in must be what lies on disk, byte for byte.

#include "torch/runtime_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace onnx2nn::torch {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

TEST(RuntimeFiles, AreThoseOfTheSourceTree) {
  const fs::path folder = fs::path(ONNX2NN_SOURCE_DIR) / "python/onnx2nn/runtime";
  std::vector<std::string> expected;
  if (fs::exists(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) {
      const fs::path& path = entry.path();
      if (path.extension() == ".py" && path.filename() != "__init__.py") {
        expected.push_back(path.filename().string());
      }
    }
  }
  std::sort(expected.begin(), expected.end());

  std::vector<std::string> names;
  for (const RuntimeFile& file : runtime_files()) {
    names.emplace_back(file.name);
    EXPECT_EQ(file.text, read(folder / file.name)) << file.name;
  }
  EXPECT_EQ(names, expected);
}

TEST(AtenSchemas, AreSortedAndLeaveOutWhatWritesIntoAnArgument) {
  const std::string_view text = aten_schemas();
  EXPECT_EQ(text, read(fs::path(ONNX2NN_SOURCE_DIR) / "src/torch/aten_schemas.txt"));
  EXPECT_NE(text.find("\nsoftmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor\n"),
            std::string_view::npos);
  EXPECT_EQ(text.find("\nrelu_("), std::string_view::npos);
  EXPECT_EQ(text.find(".out("), std::string_view::npos);

  std::vector<std::string_view> lines;
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = text.find('\n', start);
    ASSERT_NE(end, std::string_view::npos);
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  EXPECT_GT(lines.size(), 2000u);
  EXPECT_TRUE(std::is_sorted(lines.begin(), lines.end()));
}

}  // namespace
}  // namespace onnx2nn::torch
