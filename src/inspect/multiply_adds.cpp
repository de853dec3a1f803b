#include "inspect/multiply_adds.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "support/text.h"

namespace onnx2nn::inspect {
namespace {

using ir::Dim;
using ir::Dims;
using ir::Node;
using ir::Shape;
using ir::Value;

constexpr std::string_view kMicrosoft = "com.microsoft";

const Shape& shape_of(const Value* v) {
  static const Shape unknown;
  return v != nullptr && v->type.is_tensor() ? v->type.shape : unknown;
}

const Shape& in(const Node& n, std::size_t i) { return shape_of(n.input(i)); }
const Shape& out(const Node& n) { return shape_of(n.output(0)); }

/// Dim `i` from the end; unknown where there is none.
Dim last(const Shape& s, std::size_t i = 0) {
  return s.has_rank() && i < s.rank() ? s[s.rank() - 1 - i] : Dim::unknown();
}

/// Dim `i` of a tensor of this rank.
Dim at(const Shape& s, std::size_t i, std::size_t rank) {
  return s.has_rank() && s.rank() == rank ? s[i] : Dim::unknown();
}

Dim product(const Shape& s, std::size_t from = 0) {
  if (!s.has_rank()) return Dim::unknown();
  Dim p = 1;
  for (std::size_t i = from; i < s.rank(); ++i) p = p * s[i];
  return p;
}

std::int64_t integer(const Node& n, std::string_view name, std::int64_t otherwise) {
  const ir::Attribute* a = n.attribute(name);
  const auto* value = a == nullptr ? nullptr : std::get_if<std::int64_t>(&a->data);
  return value == nullptr ? otherwise : *value;
}

bool is_one_of(std::string_view type, std::initializer_list<std::string_view> types) {
  return std::find(types.begin(), types.end(), type) != types.end();
}

// ---- Kinds of work ----

/// Each element of the output is a sum over the kernel of one filter.
Dim convolution(const Node& n, std::size_t weight) { return product(out(n)) * product(in(n, weight), 1); }

/// Each element of the output is a sum over what both operands share: a row of the first.
Dim matrix_product(const Node& n, const char* transposed) {
  const bool turned = transposed != nullptr && integer(n, transposed, 0) != 0;
  return product(out(n)) * last(in(n, 0), turned ? 1 : 0);
}

/// Gates at each step, from the input and from the state.
Dim recurrent(const Node& n) {
  const Shape& x = in(n, 0);
  return at(x, 0, 3) * at(x, 1, 3) * (product(in(n, 1)) + product(in(n, 2)));
}

/// Two operands: each combination of all indices is one product. More are taken in an order of the
/// runtime's choice.
Dim einsum(const Node& n) {
  if (n.input_count() == 1) return 0;
  const ir::Attribute* a = n.attribute("equation");
  const auto* text = a == nullptr ? nullptr : std::get_if<std::string>(&a->data);
  if (text == nullptr || n.input_count() != 2) return Dim::unknown();
  std::string equation;
  for (const char c : text->substr(0, text->find("->")))
    if (c != ' ') equation += c;
  const auto operands = split(equation, ',');
  if (operands.size() != 2 || equation.find('.') != std::string::npos) return Dim::unknown();
  std::map<char, Dim> sizes;
  for (std::size_t i = 0; i < 2; ++i) {
    const Shape& s = in(n, i);
    if (!s.has_rank() || s.rank() != operands[i].size()) return Dim::unknown();
    for (std::size_t k = 0; k < s.rank(); ++k) {
      const auto [it, is_new] = sizes.emplace(operands[i][k], s[k]);
      if (!is_new && it->second == Dim(1)) it->second = s[k];
    }
  }
  Dim p = 1;
  for (const auto& [_, size] : sizes) p = p * size;
  return p;
}

/// Scores of queries (elements `q`) against `keys` rows, and as many weights of values (elements `v` of the
/// output).
Dim attention(const Dim& q, const Dim& v, const Dim& keys) { return (q + v) * keys; }

/// ai.onnx Attention: (Q, K, V, mask, past_key, past_value), of rank 4 with heads, or 3.
Dim onnx_attention(const Node& n) {
  const Shape& k = in(n, 1);
  Dim keys = k.has_rank() && k.rank() == 4 ? k[2] : at(k, 1, 3);
  if (n.input(4) != nullptr) keys = keys + at(in(n, 4), 2, 4);
  return attention(product(in(n, 0)), product(out(n)), keys);
}

/// com.microsoft Attention: (input, weights, bias, mask, past), one projection for all three.
Dim projected_attention(const Node& n, std::size_t past) {
  if (n.input(1) == nullptr || n.attribute("qkv_hidden_sizes") != nullptr) return Dim::unknown();
  const Shape& x = in(n, 0);
  Dim keys = at(x, 1, 3);
  if (n.input(past) != nullptr) keys = keys + at(in(n, past), 3, 5);
  return at(x, 0, 3) * at(x, 1, 3) * product(in(n, 1)) +
         attention(product(out(n)), product(out(n)), keys);
}

/// com.microsoft MultiHeadAttention: (query, key, value, bias, mask, bias, past_key, past_value).
Dim multi_head_attention(const Node& n) {
  const Shape& k = in(n, 1);
  if (!k.has_rank() || k.rank() > 4 || n.input(2) == nullptr || n.input(6) != nullptr)
    return Dim::unknown();  // packed, or behind what was there
  const Dim keys = k.rank() == 4 ? k[2] : at(k, 1, 3);
  return attention(product(in(n, 0)), product(out(n)), keys);
}

// ---- Operators ----

// Of com.microsoft, what has no products to add up; of others of that domain nothing is known here.
constexpr auto kElementwise = std::to_array<std::string_view>(
    {"AveragePool", "BatchNormalization", "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu",
     "BitmaskBiasDropout", "BitmaskDropout", "BranchwiseRMSNorm", "ComplexMul", "ComplexMulConj", "CropAndResize",
     "DepthToSpace", "DequantizeLinear", "EmbedLayerNormalization", "ExpandDims", "FastGelu",
     "GatedAdd", "GatedRMSNorm", "GatherBlockQuantized", "GatherND", "Gelu", "GemmaRotaryEmbedding",
     "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GridSample", "GroupNorm", "InstanceNormalization", "IsAllFinite",
     "LRN", "LpPool", "MaxPool", "MaxpoolWithMask", "MRotaryEmbedding", "MulInteger", "NhwcMaxPool",
     "Pad", "QEmbedLayerNormalization", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
     "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean", "QLinearSigmoid",
     "QLinearSoftmax", "QLinearWhere", "QuantizeLinear", "QuickGelu", "Range", "RemovePadding", "ReorderInput",
     "ReorderOutput", "Resize", "RestorePadding", "RotaryEmbedding", "ScaledSiLU", "SimplifiedLayerNormalization",
     "SkipGroupNorm", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SpaceToDepth",
     "SwiGLU", "Trilu", "Unique", "Upsample"});

Dim of_microsoft(const Node& n) {
  const std::string_view type = n.op_type;
  if (std::find(kElementwise.begin(), kElementwise.end(), type) != kElementwise.end()) return 0;
  if (is_one_of(type, {"Conv", "FusedConv", "NhwcConv"})) return convolution(n, 1);
  if (type == "QLinearConv" && integer(n, "channels_last", 0) == 0) return convolution(n, 3);
  if (type == "ConvTranspose") return product(in(n, 0)) * product(in(n, 1), 1);
  if (is_one_of(type, {"FusedMatMul", "FusedMatMulActivation", "TransposeMatMul"}))
    return integer(n, "transBatchA", 0) != 0 ? Dim::unknown() : matrix_product(n, "transA");
  if (is_one_of(type, {"FusedGemm", "GemmFastGelu", "QGemm"})) return matrix_product(n, "transA");
  if (is_one_of(type, {"DynamicQuantizeMatMul", "MatMulInteger16", "MatMulIntegerToFloat"}))
    return matrix_product(n, nullptr);
  if (is_one_of(type, {"MatMulNBits", "MatMulBnb4", "MatMulFpQ4"}))
    return product(out(n)) * last(in(n, 0));
  if (type == "Attention") return projected_attention(n, 4);
  if (type == "QAttention") return projected_attention(n, 8);
  if (type == "MultiHeadAttention") return multi_head_attention(n);
  return Dim::unknown();
}

Dim of_onnx(const Node& n) {
  const std::string_view type = n.op_type;
  if (is_one_of(type, {"Conv", "ConvInteger", "DeformConv", "CausalConvWithState"})) return convolution(n, 1);
  if (type == "QLinearConv") return convolution(n, 3);
  // Each element of the input meets the kernel of each filter of its group.
  if (type == "ConvTranspose") return product(in(n, 0)) * product(in(n, 1), 1);
  if (is_one_of(type, {"MatMul", "MatMulInteger", "QLinearMatMul"})) return matrix_product(n, nullptr);
  if (type == "Gemm") return matrix_product(n, "transA");
  if (is_one_of(type, {"RNN", "GRU", "LSTM"})) return recurrent(n);
  if (type == "Einsum") return einsum(n);
  if (type == "Attention") return onnx_attention(n);
  if (is_one_of(type, {"FlexAttention", "LinearAttention", "Gradient", "GRUUnit"})) return Dim::unknown();
  return 0;
}

Dim of_learning(const Node& n) {
  if (is_one_of(n.op_type, {"SVMClassifier", "SVMRegressor"})) return Dim::unknown();
  if (!is_one_of(n.op_type, {"LinearClassifier", "LinearRegressor"})) return 0;
  const ir::Attribute* a = n.attribute("coefficients");
  const auto* weights = a == nullptr ? nullptr : std::get_if<std::vector<double>>(&a->data);
  if (weights == nullptr) return Dim::unknown();
  return at(in(n, 0), 0, 2) * Dim(static_cast<std::int64_t>(weights->size()));
}

}  // namespace

Dim times(const Dim& count, const Dim& often) {
  return count == Dim(0) || often == Dim(0) ? Dim(0) : count * often;
}

bool is_said(const Dim& dim) {
  if (!dim.known()) return false;
  // Inference calls what it does not know by symbols that no file has.
  for (const Dim::Term& term : dim.terms())
    for (const Dim::AtomPtr& factor : term.factors) {
      if (factor->kind == ir::Atom::Kind::Symbol && factor->key.starts_with('%')) return false;
      if (!std::all_of(factor->args.begin(), factor->args.end(), is_said)) return false;
    }
  return true;
}

Dim MultiplyAdds::of(const ir::Graph& graph) {
  if (const auto it = graphs_.find(&graph); it != graphs_.end()) return it->second;
  Dim sum = 0;
  for (const Node* n = graph.first(); n != nullptr; n = n->next()) sum = sum + of(*n);
  graphs_[&graph] = sum;
  return sum;
}

Dim MultiplyAdds::runs(const Node& node, const ir::Graph& body) {
  if (node.is("If")) {
    // The branch is chosen by data: that is no matter where both are equally much work.
    const auto branches = node.subgraphs();
    if (branches.size() != 2 || !(of(*branches[0]) == of(*branches[1]))) return Dim::unknown();
    return branches[0] == &body ? 1 : 0;
  }
  if (!node.is("Scan")) return Dim::unknown();
  // Since opset 9: the first axis of what is scanned, unless scan_input_axes says otherwise.
  const std::int64_t count = integer(node, "num_scan_inputs", 0);
  if (node.opset < 9 || count <= 0 || node.attribute("scan_input_axes") != nullptr ||
      static_cast<std::uint64_t>(count) > node.input_count())
    return Dim::unknown();
  const Shape& scanned = in(node, node.input_count() - static_cast<std::size_t>(count));
  return scanned.has_rank() && scanned.rank() > 0 ? scanned[0] : Dim::unknown();
}

Dim MultiplyAdds::of(const Node& node) {
  const auto nested = node.subgraphs();
  Dim found = Dim::unknown();
  if (!nested.empty()) {
    found = 0;
    for (const ir::Graph* g : nested) found = found + times(of(*g), runs(node, *g));
  } else if (node.op != nullptr && !node.unsound) {
    if (node.domain.empty()) found = of_onnx(node);
    if (node.domain == kMicrosoft) found = of_microsoft(node);
    if (node.domain == "ai.onnx.ml") found = of_learning(node);
  }
  return is_said(found) ? found : Dim::unknown();
}

}  // namespace onnx2nn::inspect
