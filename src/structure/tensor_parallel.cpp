#include "structure/tensor_parallel.h"

#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "structure/split_layers.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

/// The paths of modules, with "*" where a path has a number among numbers only.
class Patterns {
 public:
  explicit Patterns(const torch::Program& program) {
    for (const auto& m : program.modules) see(m->path);
    for (const auto& p : program.params) see(p->path);
    for (const auto& m : program.modules) ++count_[of(m->path)];
  }
  std::string of(const std::vector<std::string>& path) const {
    std::string out;
    std::string before;
    for (const std::string& step : path) {
      const bool any = is_number(step) && mixed_.count(before) == 0;
      out += (out.empty() ? "" : ".") + (any ? "*" : step);
      before += "." + step;
    }
    return out;
  }
  /// How many modules it is the pattern of.
  std::size_t count(const std::string& pattern) const { return count_.at(pattern); }

 private:
  void see(const std::vector<std::string>& path) {
    std::string before;
    for (const std::string& step : path) {
      if (!is_number(step)) mixed_.insert(before);
      before += "." + step;
    }
  }
  static bool is_number(const std::string& step) {
    return !step.empty() && step.find_first_not_of("0123456789") == std::string::npos;
  }

  std::unordered_set<std::string> mixed_;  // containers whose children are not all numbers
  std::unordered_map<std::string, std::size_t> count_;
};

/// Weights of the author's own modules that are multiplied by (Conv1D of GPT-2).
std::vector<torch::ParamPtr> multiplied(const torch::Program& program) {
  std::vector<torch::ParamPtr> out;
  std::unordered_set<const torch::Param*> seen;
  const auto see = [&](const torch::Expr& e) {
    if (e.kind != torch::ExprKind::Aten) return;
    const std::string_view f = torch::function_of(e);
    if (f != "matmul" && f != "mm" && f != "addmm" && f != "linear") return;
    for (const torch::ExprPtr& a : e.args)
      if (a->kind == torch::ExprKind::Param && a->param->trainable && a->param->shape.size() == 2 &&
          seen.insert(a->param.get()).second)
        out.push_back(a->param);
  };
  for (const torch::Stmt& s : program.forward) each_expr(s, see);
  return out;
}

}  // namespace

TensorParallelPlan tensor_parallel(torch::Program& program) {
  TensorParallelPlan out;
  const std::vector<SplitLayer> layers = split_layers(program, out.parts);
  const Patterns patterns(program);
  std::unordered_map<std::string, std::size_t> alike;  // pattern and style: how many
  const auto key_of = [](const std::string& pattern, const SplitLayer& l) {
    return pattern + "|" + std::to_string(static_cast<int>(l.style)) + l.reason;
  };
  for (const SplitLayer& l : layers) ++alike[key_of(patterns.of(l.layer->path), l)];
  std::unordered_set<std::string> done;
  for (const SplitLayer& l : layers) {
    std::string name = patterns.of(l.layer->path);
    const bool all = alike[key_of(name, l)] == patterns.count(name);
    // For people, of the whole ones, it may be a pattern that has others too.
    if (!all && l.style != Style::Whole) name = join(l.layer->path, ".");
    if (!done.insert(key_of(name, l)).second) continue;
    if (l.style == Style::Whole) {
      out.whole.emplace_back(name, l.reason);
    } else {
      out.styles.emplace_back(name,
                              l.style == Style::Columns ? "ColwiseParallel" : "RowwiseParallel");
    }
  }
  std::unordered_set<std::string> named;
  for (const torch::ParamPtr& p : multiplied(program))
    if (std::string name = patterns.of(p->path); named.insert(name).second)
      out.whole.emplace_back(std::move(name),
                             "it is multiplied by as it is, and torch splits nn.Linear alone");
  return out;
}

}  // namespace onnx2nn::structure
