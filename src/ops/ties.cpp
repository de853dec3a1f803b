// Keys of the author's for weights that exporters keep once.
#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "ops/lower.h"
#include "ops/names.h"
#include "support/text.h"

namespace onnx2nn::ops {

/// Parameters of the author's that no statement reads, since the exporter keeps equal ones once.
void Lowering::tie_rest() {
  std::vector<Path> left;
  for (const std::string& key : keys_.left())
    if (auto path = key_components(key, /*of_key=*/true); path && !keys_.is_claimed(*path))
      left.push_back(std::move(*path));
  tie_to_inner(left);
  tie_to_embedding(left);
}

/// What a module inside has too: self.bias is self.decoder.bias. Where several have one, the last is the
/// head that it belongs to.
void Lowering::tie_to_inner(const std::vector<Path>& left) {
  std::map<Path, torch::ParamPtr> inside;  // by the key that the module around would have: the last
  for (const auto& m : program_.modules) {
    if (m->path.size() < 2 || is_number(m->path.back())) continue;
    for (const auto& [name, param] : m->params) {
      Path path(m->path.begin(), m->path.end() - 1);
      path.push_back(name);
      inside[path] = param;
    }
  }
  for (const Path& path : left) {
    const auto it = inside.find(path);
    if (it == inside.end() || !it->second->trainable) continue;
    program_.ties.push_back({keys_.claim(path), it->second});
  }
}

/// The embedding that modules share, where there is one, is a module of its own that nothing calls.
void Lowering::tie_to_embedding(const std::vector<Path>& left) {
  std::unordered_map<const torch::Param*, torch::ModulePtr> embeddings;
  for (const auto& m : program_.modules)
    if (m->type == "Embedding" && !m->params.empty()) embeddings[m->params[0].second.get()] = m;
  std::set<torch::ParamPtr> shared;
  Path around;  // the module around all that share it
  for (const torch::Tie& tie : program_.ties) {
    if (embeddings.count(tie.param.get()) == 0) continue;
    if (shared.insert(tie.param).second) around = tie.param->path;
    const auto end = std::mismatch(around.begin(), around.end(), tie.path.begin(), tie.path.end()).first;
    around.erase(end, around.end());
  }
  std::vector<Path> owners;
  for (const Path& path : left) {
    const Path owner(path.begin(), path.end() - 1);
    if (path.back() == "weight" && owner.size() == around.size() + 1 &&
        std::equal(around.begin(), around.end(), owner.begin()) && !keys_.is_called(owner) &&
        !keys_.is_claimed(path))
      owners.push_back(owner);
  }
  if (shared.size() != 1 || owners.size() != 1) return;
  auto m = std::make_shared<torch::Module>(*embeddings.at(shared.begin()->get()));
  m->path = keys_.claim(owners[0]);
  m->params.clear();
  Path weight = m->path;
  weight.emplace_back("weight");
  program_.ties.push_back({std::move(weight), *shared.begin()});
  program_.modules.push_back(std::move(m));
}

}  // namespace onnx2nn::ops
