#include <algorithm>
#include <array>
#include <unordered_map>

#include "ops/context.h"
#include "passes/rules.h"

namespace onnx2nn::passes {
namespace {

std::span<const Rule* const> all_rules() {
  static const std::vector<const Rule*> kAll = [] {
    std::vector<const Rule*> all;
    for (const auto family : {fold_rules(), noop_rules(), reshape_rules(), indexing_rules(),
                              control_flow_rules(), conv_rules(), gemm_rules(), norm_rules(),
                              activation_rules(), reduce_rules(), movement_rules(),
                              attention_rules(), pad_rules(), recurrent_rules(), parts_rules(),
                              places_rules(), quantized_rules(), quantized_product_rules(),
                              quantize_pair_rules()})
      for (const Rule& r : family) all.push_back(&r);
    return all;
  }();
  return kAll;
}

/// What one sweep leaves another finds; each looks at the whole graph.
constexpr std::size_t kMostLayoutSweeps = 16;

class Simplifier {
 public:
  Simplifier(ir::Model& model, const Options& options, std::map<std::string, std::size_t>& counts)
      : model_(model), options_(options), rewriter_(model, options), counts_(counts) {
    rewriter_.grow(-static_cast<std::int64_t>(most_growth(*model.graph, !options.change_weights)));
    for (const Rule* r : all_rules()) {
      if (!enabled(r->name, r->in_conversion)) continue;
      if (r->conversion_only && !options.any_opset) continue;
      if (r->ops.empty()) general_.push_back(r);
      for (const std::string_view op : r->ops) by_op_[op].push_back(r);
    }
  }

  /// One pass over everything to a fixed point; says whether anything changed.
  bool run() {
    const std::size_t before = done_ + removed_;
    bool again = true;
    while (again && !exhausted()) {
      rewriter_.forget_misses();
      // Outer nodes first: what is known outside is known inside.
      ir::for_each_node(*model_.graph, [&](ir::Node& n) { rewriter_.push(&n); });
      drain();
      again = merge();
    }
    drain();
    return done_ + removed_ != before;
  }
  bool exhausted() const { return done_ >= options_.stop_after || is_endless(); }
  /// Two rules undo each other, or one finds work in what it made.
  bool is_endless() const { return endless_; }
  const std::string& last_rule() const { return last_rule_; }

 private:
  bool enabled(std::string_view rule, bool in_conversion) const {
    if (options_.disabled.count(rule) != 0) return false;
    if (!options_.only.empty()) return options_.only.count(rule) != 0;
    return in_conversion || options_.change_weights || options_.also.count(rule) != 0;
  }

  void note(std::string_view rule, const std::string& node, std::size_t times = 1) {
    counts_[std::string(rule)] += times;
    done_ += times;
    endless_ = endless_ || !model_.budget().take(Resource::Rewrites, times);
    last_rule_ = rule;
    if (options_.log != nullptr)
      for (std::size_t i = 0; i < times; ++i) options_.log->emplace_back(rule, node);
  }

  void drain() {
    while (ir::Node* n = rewriter_.pop()) {
      if (is_dead(*n)) {
        remove_dead(*n);
        continue;
      }
      visit(*n);
    }
  }

  static bool is_dead(const ir::Node& n) {
    return std::none_of(n.outputs().begin(), n.outputs().end(),
                        [](const ir::Value* v) { return v != nullptr && v->has_uses(); });
  }

  /// What folding made on the way to something else is let go with its last reader.
  void remove_dead(ir::Node& n) {
    std::vector<ir::Value*> inputs;
    for (std::size_t i = 0; i < n.input_count(); ++i) inputs.push_back(n.input(i));
    rewriter_.erase(n);
    for (ir::Value* v : inputs)
      if (v != nullptr && v->constant && !v->is_graph_input && !v->has_uses()) v->constant.reset();
    ++counts_[std::string(kRemoveDead)];
    ++removed_;
  }

  void visit(ir::Node& n) {
    if (n.unsound || options_.kept.count({n.domain, n.op_type}) != 0) return;
    if (try_rules(general_, n)) return;
    if (!n.domain.empty()) return;
    if (const auto it = by_op_.find(n.op_type); it != by_op_.end()) try_rules(it->second, n);
  }

  bool try_rules(const std::vector<const Rule*>& rules, ir::Node& n) {
    for (const Rule* r : rules) {
      if (exhausted()) return false;
      rewriter_.begin_rule(r->name);
      try {
        if (!r->apply(rewriter_, n)) continue;
      } catch (const Error& e) {
        // Rules do not contradict a model; one that contradicts itself is not rewritten by halves.
        throw Error(e.code(), n.describe() + ": " + e.what(), e.hint());
      }
      note(r->name, n.name);
      rewriter_.push(&n);
      return true;
    }
    return false;
  }

  bool merge() {
    std::size_t merged = 0;
    const auto left = [&] { return options_.stop_after - std::min(options_.stop_after, done_); };
    const auto sweep = [&](std::string_view rule, auto&& merge_equal, bool in_conversion = false) {
      if (!enabled(rule, in_conversion)) return;
      const std::size_t n = merge_equal(rewriter_, *model_.graph, left());
      if (n > 0) note(rule, "", n);
      merged += n;
    };
    sweep(kOwnConstants, own_constants);
    sweep(kMergeInitializers, merge_equal_initializers);
    sweep(kMergeNodes, merge_equal_nodes);
    sweep(kMergeContents, merge_equal_contents);
    if (merged == 0) sweep(kFoldConstants, fold_ahead, true);
    if (merged == 0 && options_.any_opset && layout_sweeps_++ < kMostLayoutSweeps)
      sweep(kMoveChannels, move_channels, true);
    return merged > 0;
  }

  ir::Model& model_;
  const Options& options_;
  Rewriter rewriter_;
  std::map<std::string, std::size_t>& counts_;
  std::vector<const Rule*> general_;
  std::unordered_map<std::string_view, std::vector<const Rule*>> by_op_;
  std::size_t done_ = 0;
  bool endless_ = false;
  std::string last_rule_;
  std::size_t layout_sweeps_ = 0;
  std::size_t removed_ = 0;  // dead nodes: what shared a value with one may be fused now
};

}  // namespace

std::vector<RuleInfo> rules() {
  std::vector<RuleInfo> out;
  for (const Rule* r : all_rules())
    if (!r->conversion_only) out.push_back({r->name, r->what});
  out.push_back({kOwnConstants, "what a nested graph gives out is a constant of its own"});
  out.push_back({kMergeInitializers, "equal constants become one"});
  out.push_back({kMergeContents, "shape arithmetic that comes to the same becomes one"});
  out.push_back({kMergeNodes, "nodes that compute the same become one"});
  return out;
}

void simplify(ir::Model& model, const Options& options, Diagnostics& diagnostics,
              std::map<std::string, std::size_t>& counts) {
  // Each round infers everything anew, with what the one before found; few models need a third.
  constexpr int kMaxRounds = 16;
  Simplifier simplifier(model, options, counts);
  for (int round = 0; round < kMaxRounds; ++round) {
    Diagnostics found;
    ops::infer_graph(*model.graph, found);
    if (!simplifier.run()) {
      diagnostics.append(found);
      return;
    }
    if (simplifier.is_endless()) {
      diagnostics.add(Severity::Warning, "endless-rewriting",
                      "rewriting comes to no end and was stopped; the last rule was " +
                          simplifier.last_rule(),
                      "--disable " + simplifier.last_rule());
      break;
    }
  }
  ops::infer_graph(*model.graph, diagnostics);
}

}  // namespace onnx2nn::passes
