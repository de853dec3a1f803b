#include "ops/folded_norms.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "ops/names.h"
#include "ops/weight_role.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

/// "layer1.0.bn2" as "layer*.*.bn*".
std::string pattern_of(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (!is_digit(c)) {
      out += c;
    } else if (!out.ends_with('*')) {
      out += '*';
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> folded_batch_norms(const ir::Model& model, const torch::Program& program) {
  if (model.info.producer_name != "pytorch") return {};
  std::set<std::string> out;
  std::set<std::string_view> kept;
  for (const torch::ParamPtr& p : program.params) kept.insert(p->onnx_name);
  const Signature said = read_signature(*model.graph);
  constexpr std::string_view kMean = ".running_mean";
  for (const auto& [key, _] : said)
    if (key.ends_with(kMean) && kept.count(key) == 0 && key_components(key, /*of_key=*/true))
      out.insert(pattern_of(std::string_view(key).substr(0, key.size() - kMean.size())));
  // The older exporter names both weights of such a layer anew.
  for (const torch::ModulePtr& m : program.modules)
    if (said.empty() && m->type.starts_with("Conv") && m->params.size() == 2 &&
        std::all_of(m->params.begin(), m->params.end(), [](const auto& p) {
          return p.second->onnx_name.starts_with("onnx::Conv_");
        }))
      out.insert(pattern_of(join(m->path, ".")));
  return {out.begin(), out.end()};
}

}  // namespace onnx2nn::ops
