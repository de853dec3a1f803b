#include "onnx/file_kind.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <string_view>

#include "support/text.h"

namespace onnx2nn::onnx {
namespace {

using namespace std::string_view_literals;

// So much of a file's beginning, and of a zip archive's end, where its table of contents is.
constexpr std::uint64_t kHead = 4096;
constexpr std::uint64_t kTail = 65536;

constexpr const char* kExport = "export the model to ONNX";
constexpr const char* kUnpack = "unpack it first";
constexpr const char* kDownload = "download or export it again";

struct Magic {
  std::size_t offset;
  std::string_view bytes;
  const char* what;
  const char* advice;
};

constexpr Magic kMagics[] = {
    {0, "\x1f\x8b"sv, "gzip data", kUnpack},
    {0, "BZh"sv, "bzip2 data", kUnpack},
    {0, "\xfd\x37zXZ\0"sv, "xz data", kUnpack},
    {0, "\x28\xb5\x2f\xfd"sv, "zstd data", kUnpack},
    {0, "\x04\x22\x4d\x18"sv, "lz4 data", kUnpack},
    {0, "7z\xbc\xaf\x27\x1c"sv, "a 7z archive", kUnpack},
    {0, "Rar!\x1a\x07"sv, "a RAR archive", kUnpack},
    {257, "ustar"sv, "a tar archive", kUnpack},
    {4, "TFL3"sv, "a TensorFlow Lite model", "convert it with tf2onnx first"},
    {4, "ORTM"sv, "a model in ONNX Runtime's own format", "give the .onnx that it was made from"},
    {4, "ET12"sv, "an ExecuTorch program", kExport},
    {0, "GGUF"sv, "a GGUF model", kExport},
    {0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file, such as Keras writes",
     "convert it with tf2onnx first"},
    {0, "\x93NUMPY"sv, "a NumPy array", "it can be given as an input, not as the model"},
    {0, "ftrt"sv, "a TensorRT engine", "give the .onnx that it was made from"},
    {0, "ML\xefR"sv, "MLIR bytecode", kExport},
    {0, "\xdd\x85\x76\0"sv, "an ncnn model", kExport},
    {0, "7767517"sv, "an ncnn model", kExport},
    {0, "\x7f" "ELF"sv, "a program or library", nullptr},
    {0, "MZ"sv, "a program or library", nullptr},
    {0, "\x89PNG"sv, "a picture", nullptr},
    {0, "\xff\xd8\xff"sv, "a picture", nullptr},
    {0, "%PDF"sv, "a PDF document", nullptr},
    {0, "\xff\xfe"sv, "UTF-16 text",
     "a shell that redirects a program's output may write it: copy the file as it is"},
    {0, "\xfe\xff"sv, "UTF-16 text",
     "a shell that redirects a program's output may write it: copy the file as it is"},
};

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> starts) {
  return std::any_of(starts.begin(), starts.end(),
                     [&](std::string_view start) { return text.starts_with(start); });
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

FileKind zip_kind(std::string_view names) {
  if (contains(names, "constants.pkl") || contains(names, "/code/"))
    return {"a TorchScript archive", "export the module that it was made from to ONNX"};
  if (contains(names, "archive_format") || contains(names, "serialized_exported_program"))
    return {"a torch.export archive (.pt2)", "export it with torch.onnx.export first"};
  if (contains(names, "data.pkl"))
    return {"a file of torch.save (.pth, .pt)",
            "it holds weights or a pickled module: export the module to ONNX with "
            "torch.onnx.export"};
  if (contains(names, "model.weights.h5"))
    return {"a Keras model (.keras)", "export it with model.export(..., format=\"onnx\")"};
  if (contains(names, ".onnx")) return {"a zip archive with an ONNX model in it", kUnpack};
  if (contains(names, ".npy"))
    return {"NumPy arrays (.npz)", "they can be given as inputs, not as the model"};
  return {"a zip archive", kUnpack};
}

/// Text with at most a byte order mark before it; `text` may end within a character.
bool is_text(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return (u < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f') || u == 0x7F;
  });
}

FileKind text_kind(std::string_view text) {
  std::string start(text.substr(0, 256));
  std::transform(start.begin(), start.end(), start.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (starts_with_any(start, {"<!doctype html", "<html", "<head", "<body"}))
    return {"an HTML page",
            "the download gave a web page: take the link to the file itself (on Hugging Face the "
            "one with /resolve/)"};
  if (contains(text, "<net ") && contains(text, "<layers"))
    return {"a model of OpenVINO", "give the .onnx that it was made from"};
  if (starts_with_any(start, {"<?xml"})) return {"an XML file", ""};
  if (starts_with_any(text, {"ir_version"}))
    return {"an ONNX model as protobuf's text",
            "onnx.save(onnx.load(path, format=\"textproto\"), \"model.onnx\") makes a model of it"};
  if (text.starts_with('<') && contains(text, "ir_version"))
    return {"an ONNX model as ONNX's text",
            "onnx.save(onnx.load(path, format=\"onnxtxt\"), \"model.onnx\") makes a model of it"};
  if (starts_with_any(text, {"{", "["})) {
    if (contains(text, "\"irVersion\"") || contains(text, "\"opsetImport\""))
      return {"an ONNX model as JSON",
              "onnx.save(onnx.load(path, format=\"json\"), \"model.onnx\") makes a model of it"};
    return {"a JSON file", "if a server gave it instead of the file, it says why"};
  }
  if (starts_with_any(text, {"module {", "module @", "module attributes", "builtin.module", "#map",
                             "func.func", "#loc"}))
    return {"a model as MLIR", kExport};
  if (contains(text, "layer {") || contains(text, "layers {"))
    return {"a description of a Caffe network", kExport};
  if (contains(text, "node {") && contains(text, "op:"))
    return {"a TensorFlow graph as text", "convert it with tf2onnx first"};
  return {"a text file that begins with \"" + printable(text.substr(0, text.find('\n')).substr(0, 40)) + "\"",
          kDownload};
}

/// Formats that are protobuf messages too, told by their first fields.
std::optional<FileKind> protobuf_kind(std::string_view head) {
  const auto byte = [&](std::size_t i) {
    return i < head.size() ? static_cast<unsigned char>(head[i]) : 0U;
  };
  if (byte(0) == 0x08 && byte(2) == 0x12) {
    std::size_t at = 3;
    while (byte(at) >= 0x80) ++at;
    if (byte(1) == 1 && contains(head, "tensorflow"))
      return FileKind{"a TensorFlow SavedModel", "convert it with tf2onnx first"};
    if (byte(at + 1) == 0x0A) return FileKind{"a Core ML model", kExport};
  }
  if (byte(0) == 0x0A && (contains(head, "Placeholder") || contains(head, "Const")))
    return FileKind{"a TensorFlow graph", "convert it with tf2onnx first"};
  if (byte(0) == 0x0A && contains(head, "feed") && contains(head, "fetch"))
    return FileKind{"a PaddlePaddle model", "convert it with paddle2onnx first"};
  return std::nullopt;
}

/// The size of the header, then the header: a JSON object.
bool is_safetensors(std::string_view head, std::uint64_t size) {
  if (head.size() < 10) return false;
  std::uint64_t header = 0;
  std::memcpy(&header, head.data(), sizeof header);
  return header >= 2 && header <= size - 8 && (head.substr(8).starts_with("{\"") || head.substr(8).starts_with("{}"));
}

std::string part_of(const InputFile& file, std::uint64_t offset, std::uint64_t length) {
  std::string out(static_cast<std::size_t>(length), '\0');
  file.read(offset, std::as_writable_bytes(std::span(out)));
  return out;
}

}  // namespace

bool is_lfs_pointer(const InputFile& file) {
  constexpr std::string_view kStart = "version https://git-lfs.github.com/spec/";
  constexpr std::uint64_t kLongest = 1024;  // as its specification has it
  return file.size() >= kStart.size() && file.size() < kLongest &&
         part_of(file, 0, kStart.size()) == kStart;
}

std::optional<FileKind> recognise(const InputFile& file) {
  if (file.size() == 0) return FileKind{"an empty file", kDownload};
  if (is_lfs_pointer(file)) return FileKind{"a Git LFS pointer", "run git lfs pull"};
  const std::string all = part_of(file, 0, std::min(kHead, file.size()));
  const std::string_view head = all;
  if (head.starts_with("PK\x03\x04") || head.starts_with("PK\x05\x06")) {
    const std::uint64_t tail = std::min(kTail, file.size());
    return zip_kind(all + part_of(file, file.size() - tail, tail));
  }
  for (const Magic& m : kMagics)
    if (head.size() > m.offset && head.substr(m.offset).starts_with(m.bytes))
      return FileKind{m.what, m.advice == nullptr ? "" : m.advice};
  if (is_safetensors(head, file.size()))
    return FileKind{"a safetensors file", "it holds weights only: export the model to ONNX"};
  if (head.size() > 2 && head[0] == '\x80' && head[1] >= 2 && head[1] <= 5)
    return FileKind{"a pickle, as torch.save wrote (.pth, .pt)",
                    "it holds weights or a pickled module: export the module to ONNX with "
                    "torch.onnx.export"};
  if (std::all_of(head.begin(), head.end(), [](char c) { return c == '\0'; }))
    return FileKind{"a file of zeros", kDownload};
  if (is_text(head)) {
    std::string_view text = head;
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text[0])) != 0)
      text.remove_prefix(1);
    FileKind kind = text_kind(text);
    kind.is_text = true;
    return kind;
  }
  return protobuf_kind(head);
}

}  // namespace onnx2nn::onnx
