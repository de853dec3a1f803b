#include "onnx/external_data.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "onnx/file_kind.h"
#include "support/error.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn::onnx {
namespace {

namespace fs = std::filesystem;

bool is_below(const fs::path& folder, const fs::path& path) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first ==
         folder.end();
}

}  // namespace

ExternalData::ExternalData(const std::string& model, const std::string& folder,
                           const std::vector<std::string>& roots) {
  std::error_code ec;
  const auto add = [&](std::vector<std::string>& to, const fs::path& path) {
    if (!ec && std::find(to.begin(), to.end(), path_text(path)) == to.end())
      to.push_back(path_text(path));
  };
  if (!folder.empty()) add(folders_, fs::canonical(to_path(folder), ec));
  if (!folder.empty() && !model.empty())
    add(folders_, fs::canonical(to_path(model), ec).parent_path());
  for (const std::string& root : roots) {
    const fs::path real = fs::canonical(to_path(root.empty() ? "." : root), ec);
    if (ec || !fs::is_directory(real, ec))
      throw Error("bad-option", "the folder " + printable(root) + " for external data is none",
                  "--data-root names a folder that exists");
    add(folders_, real);
    add(roots_, real);
    add(roots_, fs::absolute(to_path(root), ec).lexically_normal());
  }
}

std::optional<std::string> ExternalData::folder_around(const std::string& path) const {
  const auto it = std::find_if(folders_.begin(), folders_.end(),
                               [&](const std::string& folder) { return is_below(to_path(folder), to_path(path)); });
  return it == folders_.end() ? std::nullopt : std::optional(*it);
}

std::shared_ptr<const InputFile> ExternalData::open(const std::string& location) {
  if (const auto it = files_.find(location); it != files_.end()) return it->second;
  if (folders_.empty())
    throw Error("external-data", "the model keeps weights in another file, but was given as bytes",
                "give the path of the model instead");
  if (location.find('\0') != std::string::npos)
    throw Error("external-data", "the location of external data holds a NUL character");
  if (location.empty())
    throw Error("external-data", "the model does not say which file its external data is in");
  std::vector<fs::path> candidates;
  bool leaves = false;
  // What leaves all folders as it is written is not even looked at: a look may already go to another
  // machine.
  const auto consider = [&](const fs::path& path, const std::vector<std::string>& folders) {
    const fs::path plain = path.lexically_normal();
    const bool inside = std::any_of(folders.begin(), folders.end(),
                                    [&](const std::string& f) { return is_below(to_path(f), plain); });
    if (inside) candidates.push_back(plain);
    leaves = leaves || !inside;
  };
  if (to_path(location).is_absolute()) {
    consider(to_path(location), roots_);
  } else {
    for (const std::string& folder : folders_) consider(to_path(folder) / to_path(location), folders_);
  }
  bool by_link = false;
  for (const fs::path& candidate : candidates) {
    std::error_code ec;
    const fs::path real = fs::canonical(candidate, ec);
    if (ec) continue;
    const auto folder = folder_around(path_text(real));
    if (!folder) {
      by_link = true;
      continue;
    }
    auto file = InputFile::open_below(*folder, path_text(real.lexically_relative(to_path(*folder))));
    if (is_lfs_pointer(*file))
      throw Error("external-data",
                  "the external data " + printable(location) + " is a Git LFS pointer",
                  "run git lfs pull");
    return files_[location] = std::move(file);
  }
  if (leaves || by_link)
    throw Error("external-data",
                "the external data " + printable(location) + " lies outside of the model's folder" +
                    (by_link ? ", where a link leads" : ""),
                "where you trust the model with a folder around that file, name it: --data-root DIR");
  throw Error("external-data", "the external data " + printable(location) + " is missing",
              "put it beside the model, or name the folder that holds it: --data-root DIR");
}

}  // namespace onnx2nn::onnx
