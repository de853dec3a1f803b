// Writes a weight file as a JSON description says; for the tests that open it with its real
// readers. usage: weights_tool DESCRIPTION.json OUT.safetensors|OUT.pth [SHARD_LIMIT]
#include <cstdio>
#include <exception>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

#include "emit/weights.h"
#include "support/input_file.h"

namespace {

using onnx2nn::ByteSource;
using onnx2nn::InputFile;
using onnx2nn::emit::WeightEntry;

int run(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: weights_tool DESCRIPTION.json OUT [SHARD_LIMIT]\n", stderr);
    return 2;
  }
  const auto description = InputFile::open(argv[1]);
  const auto* text = reinterpret_cast<const char*>(description->bytes().data());
  const auto json = nlohmann::json::parse(text, text + description->size());
  std::map<std::string, std::shared_ptr<const InputFile>> files;
  std::vector<WeightEntry> entries;
  for (const auto& item : json.at("weights")) {
    WeightEntry entry;
    entry.key = item.at("key").get<std::string>();
    entry.dtype = item.at("dtype").get<std::string>();
    entry.shape = item.at("shape").get<std::vector<std::int64_t>>();
    entry.transpose = item.value("transpose", false);
    entry.alias_of = item.value("alias_of", "");
    if (item.contains("file")) {
      auto& file = files[item.at("file").get<std::string>()];
      if (!file) file = InputFile::open(item.at("file").get<std::string>());
      entry.source = ByteSource::of_file(file, item.at("offset").get<std::uint64_t>(),
                                         item.at("length").get<std::uint64_t>());
    } else if (item.contains("parts")) {
      for (const auto& part : item.at("parts")) {
        auto& file = files[part.at("file").get<std::string>()];
        if (!file) file = InputFile::open(part.at("file").get<std::string>());
        entry.parts.push_back(
            {ByteSource::of_file(file, 0, file->size()), part.at("offset").get<std::int64_t>(),
             part.at("rows").get<std::int64_t>(), part.at("columns").get<std::int64_t>(),
             part.at("stride").get<std::int64_t>(), part.at("transpose").get<bool>()});
      }
    } else if (item.contains("repeat")) {
      const auto byte = static_cast<std::byte>(item.at("repeat").get<int>());
      entry.fill = [byte](std::span<std::byte> out) { std::fill(out.begin(), out.end(), byte); };
    }
    entries.push_back(std::move(entry));
  }
  const std::string out = argv[2];
  std::vector<std::string> written;
  if (out.ends_with(".pth")) {
    written = onnx2nn::emit::write_state_dict_pth(out, entries);
  } else if (argc > 3) {
    written = onnx2nn::emit::write_safetensors(out, entries, {}, std::stoull(argv[3]));
  } else {
    written = onnx2nn::emit::write_safetensors(out, entries, {{"source", "a test"}});
  }
  for (const std::string& path : written) std::puts(path.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
