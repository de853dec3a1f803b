#include "passes/layouts.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ops/context.h"

namespace onnx2nn::passes {
namespace {

using Inputs = std::vector<ir::Value*>;
using Ints = std::vector<std::int64_t>;

constexpr std::string_view kNchwc = "com.microsoft.nchwc";
constexpr std::string_view kNhwc = "com.ms.internal.nhwc";
// In this opset all operators used here take as inputs what older ones have as attributes.
constexpr std::int64_t kOpset = 13;
constexpr std::int64_t kWideBlock = 16;
constexpr std::int64_t kNarrowBlock = 8;

class Layouts {
 public:
  Layouts(ir::Model& model, const std::set<std::pair<std::string, std::string>>& kept,
          Diagnostics& diagnostics)
      : model_(model), kept_(kept), diagnostics_(diagnostics) {}
  void run();

 private:
  bool concerns(const ir::Node& n) const {
    return n.op != nullptr && n.op->other_layout && kept_.count({n.domain, n.op_type}) == 0;
  }
  void from_blocks(ir::Node& n);
  void from_channels_last(ir::Node& n);
  void become(ir::Node& n, std::string op_type, std::string domain = "");
  ir::Value* add(ir::Node& before, std::string op_type, const Inputs& inputs);
  ir::Value* ints(ir::Node& n, const Ints& values);
  void move_channels_first(ir::Node& n, std::size_t input, std::size_t rank);
  void move_channels_last(ir::Node& n, std::size_t rank);
  std::int64_t block();
  std::optional<std::int64_t> block_in_file() const;
  ir::Value* plain_weight(ir::Value* weight);

  ir::Model& model_;
  const std::set<std::pair<std::string, std::string>>& kept_;
  Diagnostics& diagnostics_;
  std::int64_t block_ = 0;
  std::unordered_map<const ir::Value*, ir::Value*> weights_;  // blocked -> plain
};

std::int64_t int_attribute(const ir::Node& n, std::string_view name, std::int64_t otherwise) {
  const ir::Attribute* a = n.attribute(name);
  const auto* value = a == nullptr ? nullptr : std::get_if<std::int64_t>(&a->data);
  return value == nullptr ? otherwise : *value;
}

void drop_attributes(ir::Node& n, std::initializer_list<std::string_view> names) {
  auto& list = n.attributes;
  list.erase(std::remove_if(list.begin(), list.end(),
                            [&](const ir::Attribute& a) {
                              return std::find(names.begin(), names.end(), a.name) != names.end();
                            }),
             list.end());
}

// ---------------------------------------------------------------- nodes

void Layouts::become(ir::Node& n, std::string op_type, std::string domain) {
  n.op_type = std::move(op_type);
  n.domain = std::move(domain);
  n.op = ops::find_op(n.domain, n.op_type);
  n.opset = n.domain.empty() ? std::max(model_.opset(""), kOpset) : 1;
}

ir::Value* Layouts::add(ir::Node& before, std::string op_type, const Inputs& inputs) {
  const std::vector<std::string> names{model_.new_name(before.op_type)};
  ir::Node* made = before.graph()->add_node(op_type, "", inputs, names, &before);
  made->name = before.name;
  become(*made, std::move(op_type));
  return made->output(0);
}

ir::Value* Layouts::ints(ir::Node& n, const Ints& values) {
  return n.graph()->add_initializer(model_.new_name(n.op_type), ir::Tensor::ints(values), false);
}

Ints channels_first(std::size_t rank) {
  Ints perm{0, static_cast<std::int64_t>(rank) - 1};
  for (std::int64_t i = 1; i + 1 < static_cast<std::int64_t>(rank); ++i) perm.push_back(i);
  return perm;
}

Ints channels_last(std::size_t rank) {
  Ints perm{0};
  for (std::int64_t i = 2; i < static_cast<std::int64_t>(rank); ++i) perm.push_back(i);
  perm.push_back(1);
  return perm;
}

void Layouts::move_channels_first(ir::Node& n, std::size_t input, std::size_t rank) {
  ir::Value* moved = add(n, "Transpose", {n.input(input)});
  moved->producer()->attributes.push_back({"perm", channels_first(rank)});
  n.set_input(input, moved);
}

/// What the node computes with channels first is moved before anyone sees it.
void Layouts::move_channels_last(ir::Node& n, std::size_t rank) {
  ir::Value* y = n.output(0);
  const std::vector<std::string> names{y->name};
  ir::Node* made = n.graph()->add_node("Transpose", "", Inputs{nullptr}, names, n.next());
  made->name = n.name;
  become(*made, "Transpose");
  made->attributes.push_back({"perm", channels_last(rank)});
  made->output(0)->type = y->type;
  y->replace_all_uses(made->output(0));
  y->name = model_.new_name(y->name);
  y->type.shape = ir::Shape();
  made->set_input(0, y);
}

// ---------------------------------------------------------------- com.ms.internal.nhwc

std::size_t rank_of(const ir::Node& n) {
  for (const ir::Value* v : {n.input(0), n.output(0)})
    if (v != nullptr && v->type.shape.has_rank()) return v->type.shape.rank();
  fail("unsupported-operator", "the rank of its input is not known");
}

void Layouts::from_channels_last(ir::Node& n) {
  // Its sizes are in the order of the axes, whichever that is.
  const bool any_layout = n.op_type == "Resize";
  const std::size_t rank = any_layout ? 0 : rank_of(n);
  if (!any_layout && rank < 3) fail("bad-model", "its input has rank {}", rank);
  if (n.op_type == "MaxPool" && n.output(1) != nullptr && n.output(1)->has_uses())
    fail("unsupported-operator", "the indices of a channels-last pooling are not supported");
  const std::int64_t opset = n.opset;
  const bool fused = n.op_type == "Conv" &&
                     (n.attribute("activation") != nullptr || n.input(3) != nullptr);
  if (fused) {
    become(n, "FusedConv", "com.microsoft");
  } else {
    become(n, n.op_type);
    // The domain's versions are those of ai.onnx.
    if (n.op != nullptr && opset >= n.op->changed_at[0]) n.opset = opset;
  }
  if (any_layout) return;
  move_channels_first(n, 0, rank);
  if (fused && n.input(3) != nullptr) move_channels_first(n, 3, rank);
  move_channels_last(n, rank);
}

// ---------------------------------------------------------------- com.microsoft.nchwc
// [batch, channels / block, height, width, block], which shapes say as four axes, the channels
// filled up to whole blocks. Here the channels stay filled up, one after the other.

/// The convolution that says how many channels a value has.
const ir::Node* convolution_of(const ir::Value* v) {
  while (v != nullptr && v->producer() != nullptr && v->producer()->domain == kNchwc) {
    if (v->producer()->op_type == "Conv") return v->producer();
    v = v->producer()->input(0);
  }
  return nullptr;
}

std::optional<std::int64_t> output_channels(const ir::Node* conv) {
  const ir::Value* w = conv == nullptr ? nullptr : conv->input(1);
  if (w == nullptr || !w->constant || w->constant->rank() != 4) return std::nullopt;
  return w->constant->dims()[0];
}

/// The block's size, where some channels could not have been filled up so by the other.
std::optional<std::int64_t> Layouts::block_in_file() const {
  std::optional<std::int64_t> found;
  ir::for_each_node(*model_.graph, [&](const ir::Node& n) {
    if (n.domain != kNchwc) return;
    if (n.op_type == "Conv")
      if (const auto filled = output_channels(&n); filled && *filled % kWideBlock != 0)
        found = kNarrowBlock;
    if (n.op_type == "ReorderOutput")
      if (const auto filled = output_channels(convolution_of(n.input(0)));
          filled && *filled - int_attribute(n, "channels", *filled) >= kNarrowBlock)
        found = kWideBlock;
  });
  return found;
}

/// What ONNX Runtime's kernels on this machine would take.
std::int64_t block_of_machine() {
#if defined(__x86_64__) || defined(__i386__)
  return __builtin_cpu_supports("avx512f") ? kWideBlock : kNarrowBlock;
#else
  return kWideBlock;
#endif
}

std::int64_t Layouts::block() {
  if (block_ != 0) return block_;
  const auto found = block_in_file();
  block_ = found ? *found : block_of_machine();
  if (!found)
    diagnostics_.add(Severity::Warning, "blocked-weights",
                     "the weights may lie in blocks of 8 or of 16 channels, which the file does "
                     "not say; " +
                         std::to_string(block_) + " is what ONNX Runtime takes on this machine",
                     "convert it on the machine that wrote it, or convert the original model");
  return block_;
}

/// [outputs, inputs, height, width] of a filter whose outputs, and whose inputs where they fill a
/// block, lie in blocks behind the other axes.
ir::Value* Layouts::plain_weight(ir::Value* weight) {
  if (const auto it = weights_.find(weight); it != weights_.end()) return it->second;
  const ir::TensorPtr t = weight->constant;
  if (t == nullptr || t->rank() != 4 || t->dtype() != ir::DType::Float32)
    fail("unsupported-operator", "its weight is not a constant of four axes in float32");
  const auto size = static_cast<std::size_t>(block());
  const auto outputs = static_cast<std::size_t>(t->dims()[0]);
  const auto inputs = static_cast<std::size_t>(t->dims()[1]);
  const std::size_t area = static_cast<std::size_t>(t->dims()[2]) *
                           static_cast<std::size_t>(t->dims()[3]);
  const std::size_t inner = inputs >= size ? size : 1;
  if (outputs % size != 0 || inputs % inner != 0)
    fail("bad-model", "its weight has {} x {} channels, which are no whole blocks of {}", outputs,
         inputs, size);
  std::vector<float> plain(static_cast<std::size_t>(t->size()));
  std::int64_t from = 0;
  for (std::size_t o = 0; o < outputs; o += size)
    for (std::size_t i = 0; i < inputs; i += inner)
      for (std::size_t at = 0; at < area; ++at)
        for (std::size_t bi = 0; bi < inner; ++bi)
          for (std::size_t bo = 0; bo < size; ++bo)
            plain[((o + bo) * inputs + i + bi) * area + at] = t->at<float>(from++);
  ir::Value* made = weight->graph()->add_initializer(
      weight->name, ir::Tensor::from<float>(t->dtype(), t->dims(), plain), weight->is_initializer);
  weights_[weight] = made;
  return made;
}

void Layouts::from_blocks(ir::Node& n) {
  const bool moved = int_attribute(n, "channels_last", 0) != 0;
  if (n.op_type == "Conv") {
    if (n.input(1) == nullptr) fail("bad-model", "its weight is missing");
    n.set_input(1, plain_weight(n.input(1)));
    const bool fused = n.attribute("activation") != nullptr || n.input(3) != nullptr;
    return fused ? become(n, "FusedConv", "com.microsoft") : become(n, "Conv");
  }
  if (n.op_type == "ReorderInput") {
    // Zeros fill up the last block.
    if (moved) move_channels_first(n, 0, 4);
    ir::Value* shape = add(n, "Shape", {n.input(0)});
    ir::Value* channels = add(n, "Slice", {shape, ints(n, {1}), ints(n, {2}), ints(n, {0})});
    ir::Value* missing = add(n, "Mod", {add(n, "Neg", {channels}), ints(n, {block()})});
    ir::Value* pads = add(n, "Concat", {ints(n, Ints(5, 0)), missing, ints(n, {0, 0})});
    pads->producer()->attributes.push_back({"axis", std::int64_t{0}});
    drop_attributes(n, {"channels_last"});
    n.set_inputs(Inputs{n.input(0), pads});
    return become(n, "Pad");
  }
  if (n.op_type == "ReorderOutput") {
    const std::int64_t channels = int_attribute(n, "channels", 0);
    if (channels < 1) fail("bad-model", "it has {} channels", channels);
    drop_attributes(n, {"channels", "channels_last"});
    n.set_inputs(Inputs{n.input(0), ints(n, {0}), ints(n, {channels}), ints(n, {1})});
    become(n, "Slice");
    if (moved) move_channels_last(n, 4);
    return;
  }
  if (n.op_type == "Upsample") {
    const ir::Attribute* a = n.attribute("scales");
    const auto* scales = a == nullptr ? nullptr : std::get_if<Ints>(&a->data);
    if (scales == nullptr) fail("bad-model", "its scales are missing");
    const std::vector<float> factors(scales->begin(), scales->end());
    ir::Value* value = n.graph()->add_initializer(
        model_.new_name(n.op_type),
        ir::Tensor::from<float>(ir::DType::Float32, {static_cast<std::int64_t>(factors.size())},
                                factors),
        false);
    const ir::Attribute* mode = n.attribute("mode");
    const auto* name = mode == nullptr ? nullptr : std::get_if<std::string>(&mode->data);
    if (name == nullptr || *name == "nearest") {
      // Each pixel is repeated.
      drop_attributes(n, {"coordinate_transformation_mode"});
      n.attributes.push_back({"coordinate_transformation_mode", std::string("asymmetric")});
      n.attributes.push_back({"nearest_mode", std::string("floor")});
    }
    drop_attributes(n, {"scales"});
    n.set_inputs(Inputs{n.input(0), nullptr, value});
    return become(n, "Resize");
  }
  become(n, n.op_type);
}

void Layouts::run() {
  bool any = false;
  bool needs_ranks = false;
  ir::for_each_node(*model_.graph, [&](const ir::Node& n) {
    any |= concerns(n);
    needs_ranks |= concerns(n) && n.domain == kNhwc;
  });
  if (!any) return;
  if (needs_ranks) {
    Diagnostics later;  // found again once all operators are known
    ops::infer_graph(*model_.graph, later);
  }
  std::vector<ir::Node*> nodes;
  ir::for_each_node(*model_.graph, [&](ir::Node& n) {
    if (concerns(n)) nodes.push_back(&n);
  });
  // Before any of them is rewritten, while what its channels say can be read.
  const auto in_blocks = [](const ir::Node* n) { return n->domain == kNchwc; };
  if (std::any_of(nodes.begin(), nodes.end(), in_blocks)) block();
  for (ir::Node* n : nodes) {
    try {
      if (n->input(0) == nullptr) fail("bad-model", "its input is missing");
      if (n->output(0) == nullptr) continue;  // nobody asks for what it makes
      n->domain == kNchwc ? from_blocks(*n) : from_channels_last(*n);
    } catch (const Error& e) {
      diagnostics_.add(ops::diagnose(*n, e));
    }
  }
}

}  // namespace

void plain_layouts(ir::Model& model, const std::set<std::pair<std::string, std::string>>& kept,
                   Diagnostics& diagnostics) {
  Layouts(model, kept, diagnostics).run();
}

}  // namespace onnx2nn::passes
