#include "outputs.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>

#include "diagnostics.h"
#include "onnx/wire.h"
#include "onnx/writer.h"
#include "onnx2nn/convert.h"
#include "support/error.h"
#include "support/files.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

namespace fs = std::filesystem;

std::string first_bytes(const std::string& path) {
  // A file's name, escaped, and some words more.
  constexpr std::size_t kEnough = 8192;
  std::string out(kEnough, '\0');
  std::ifstream file(to_path(path), std::ios::binary);
  file.read(out.data(), static_cast<std::streamsize>(out.size()));
  out.resize(static_cast<std::size_t>(file.gcount()));
  return out;
}

/// `"""Net, converted from net.onnx by onnx2nn.`, or without the file's name, where that is long.
bool is_our_source(std::string_view text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  return line.starts_with("\"\"\"") && line.ends_with(" by onnx2nn.") &&
         (line.find(", converted from ") != std::string_view::npos ||
          line.ends_with(", converted by onnx2nn."));
}

/// The marks stand first in their files.
bool is_our_weights(std::string_view text) {
  constexpr std::string_view kIndex = "{\n  \"metadata\": {\n    \"onnx2nn\":";
  constexpr std::string_view kHeader = R"({"__metadata__":{"onnx2nn":)";
  constexpr std::size_t kHeaderAt = 8;
  constexpr std::string_view kMember = "archive/onnx2nn";
  constexpr std::size_t kMemberAt = 30;
  const auto has = [&](std::size_t at, std::string_view what) {
    return text.size() >= at && text.substr(at).starts_with(what);
  };
  return has(0, kIndex) || has(kHeaderAt, kHeader) || (text.starts_with("PK\x03\x04") && has(kMemberAt, kMember));
}

/// What torch and ExecuTorch write for us says so in the end of its zip file, or among its constants.
bool is_our_program(const std::string& path, std::string_view begins) {
  const bool is_zip = begins.starts_with("PK\x03\x04");
  const bool is_executorch = begins.size() > 6 && begins.substr(4, 2) == "ET";
  if (!is_zip && !is_executorch) return false;
  constexpr std::streamoff kEnough = 1 << 20;
  std::ifstream file(to_path(path), std::ios::binary | std::ios::ate);
  const std::streamoff size = file.tellg();
  const std::streamoff length = std::min(size, kEnough);
  std::string text(static_cast<std::size_t>(std::max<std::streamoff>(length, 0)), '\0');
  file.seekg(is_zip ? size - length : 0);
  file.read(text.data(), length);
  return file && text.find(is_zip ? "/extra/onnx2nn" : "written_by_onnx2nn") != std::string::npos;
}

bool is_our_model(const std::string& path) {
  constexpr std::uint32_t kMetadata = 14;
  try {
    const auto file = InputFile::open(path);
    wire::Reader model(file->place(), 0, "ModelProto", file.get());
    while (model.next()) {
      if (model.field() != kMetadata) {
        model.skip();
        continue;
      }
      wire::Reader entry = model.message("StringStringEntryProto");
      while (entry.next()) {
        if (entry.field() == 1 && entry.text() == kMark) return true;
        if (entry.field() != 1) entry.skip();
      }
    }
  } catch (const Error&) {  // no model at all
  }
  return false;
}

std::optional<std::pair<std::uint64_t, std::uint64_t>> id_of(const std::string& path) {
  const auto info = files::info_at(path);
  if (!info) return std::nullopt;
  return std::pair(info->device, info->inode);
}

/// The folder without links, and the name as it is.
fs::path placed(const std::string& path) {
  std::error_code ec;
  const fs::path full = fs::absolute(to_path(path), ec).lexically_normal();
  const fs::path folder = fs::canonical(full.parent_path(), ec);
  return (ec ? full.parent_path() : folder) / full.filename();
}

void add_files(const ir::Tensor& tensor, std::set<std::string>& out) {
  const ByteSource& source = tensor.source();
  if (source.on_disk()) out.insert(source.file()->path());
}

void add_files(const ir::Graph& graph, std::set<std::string>& out) {
  for (const ir::Value* v : graph.initializers)
    if (v->constant) add_files(*v->constant, out);
  for (const ir::Node* n = graph.first(); n != nullptr; n = n->next()) {
    for (const ir::Attribute& a : n->attributes) {
      if (const auto* one = std::get_if<ir::TensorPtr>(&a.data)) add_files(**one, out);
      if (const auto* many = std::get_if<std::vector<ir::TensorPtr>>(&a.data))
        for (const ir::TensorPtr& t : *many) add_files(*t, out);
    }
    for (const ir::Graph* inner : n->subgraphs()) add_files(*inner, out);
  }
}

}  // namespace

bool is_ours(const std::string& path) {
  const auto info = files::info_at(path);
  if (!info || info->kind != files::Kind::Regular) return false;
  const std::string text = first_bytes(path);
  return is_our_source(text) || is_our_weights(text) || is_our_program(path, text) ||
         std::string_view(text).starts_with(onnx::kDataMark) || is_our_model(path);
}

std::vector<std::string> data_files(const ir::Model& model, const std::string& model_path) {
  std::set<std::string> out;
  add_files(*model.graph, out);
  out.erase(model_path);
  return {out.begin(), out.end()};
}

void check_suffix(const std::string& path, std::string_view what,
                  const std::vector<std::string_view>& suffixes) {
  const std::string suffix = to_lower(suffix_of(path));
  if (std::find(suffixes.begin(), suffixes.end(), suffix) == suffixes.end())
    throw Error("bad-option",
                printable(path) + " is no name for " + std::string(what) + ": it ends in " +
                    join(suffixes, " or "),
                "give the output another name");
}

void check_model_suffix(const std::string& path) {
  static const std::set<std::string_view> kOthers = {
      ".bin",  ".cfg",  ".ckpt", ".csv", ".data", ".h5",  ".json",        ".md",     ".npy", ".npz",
      ".pkl",  ".pt",   ".pt2",  ".pte", ".pth", ".py",   ".pyi",        ".safetensors",
      ".tflite", ".toml", ".txt",  ".yaml", ".yml", ".zip"};
  if (kOthers.count(to_lower(suffix_of(path))) != 0)
    check_suffix(path, "an ONNX model", {".onnx"});
}

Outputs::Outputs(const std::string& model_path, const std::vector<std::string>& data_files,
                 bool force)
    : model_path_(model_path), force_(force) {
  if (const auto id = id_of(model_path)) inputs_.insert(*id);
  for (const std::string& path : data_files)
    if (const auto id = id_of(path)) inputs_.insert(*id);
}

bool Outputs::allow_in_place(const std::string& path) {
  if (model_path_.empty() || path.empty() || placed(path) != placed(model_path_)) return false;
  in_place_ = path;
  return true;
}

bool Outputs::is_input(const std::string& path) const {
  const auto id = id_of(path);
  return id && inputs_.count(*id) != 0;
}

void Outputs::check(const std::string& path) const {
  const std::string target = followed(path);
  const std::string shown = printable(path);
  if (const auto why = why_no_file_name(target); !why.empty()) fail("io", "cannot write {}: {}", shown, why);
  const auto info = files::info_at(target);
  if (!info) return;  // what is not there can be written
  if (info->kind == files::Kind::Folder) fail("io", "cannot write {}: it is a folder", shown);
  if (info->kind != files::Kind::Regular)
    fail("io", "cannot write {}: it is a device, a pipe or a socket", shown);
  const bool in_place = !in_place_.empty() && path == in_place_;
  if (in_place && target != path)
    throw Error("would-overwrite",
                shown + " is a link to " + printable(target) + ", which others may use",
                "name that file itself, or another output");
  if (in_place) return;
  if (is_input(path) && (in_place_.empty() || !is_ours(target)))
    throw Error("would-overwrite", shown + " is read as part of the model: it cannot be the output",
                "give the output another name");
  if (force_ || info->size == 0) return;
  if (!is_ours(target))
    throw Error("would-overwrite", shown + " exists, and onnx2nn did not write it",
                "give the output another name, or replace the file with --force (force=True)");
  if (!files::may_write(target))
    throw Error("would-overwrite", shown + " exists and is write-protected",
                "give the output another name, or replace the file with --force (force=True)");
}

AtomicFileSet Outputs::files() const {
  return AtomicFileSet([rules = *this](const std::string& path) { rules.check(path); }, is_ours);
}

std::vector<DiagnosticInfo> check_outputs(const std::string& model_path,
                                          const std::vector<std::string>& paths, bool force) {
  Diagnostics diagnostics;
  for (const std::string& path : paths) {
    try {
      Outputs rules(model_path, {}, force);
      if (suffix_of(path) == ".onnx") rules.allow_in_place(path);
      rules.check(path);
    } catch (const Error& e) {
      diagnostics.add(e);
    }
  }
  return infos_of(diagnostics);
}

std::vector<DiagnosticInfo> publish_file(const std::string& from, const std::string& path,
                                         const std::string& model_path, bool force) {
  Diagnostics diagnostics;
  try {
    const Outputs rules(model_path, {}, force);
    rules.check(path);
    AtomicFileSet files = rules.files();
    files.adopt(from, path);
    files.commit();
  } catch (const Error& e) {
    diagnostics.add(e);
  }
  return infos_of(diagnostics);
}

}  // namespace onnx2nn
