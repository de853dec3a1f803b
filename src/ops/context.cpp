#include "ops/context.h"

#include <algorithm>

namespace onnx2nn::ops {

NodeContext::NodeContext(const ir::Node& node)
    : node_(node), opset_(node.opset), read_(node.attributes.size(), false) {}

void NodeContext::fail(const std::string& message, const std::string& hint) const {
  throw Error("bad-model", message, hint);
}

void NodeContext::unsupported(const std::string& message, const std::string& hint) const {
  throw Error("unsupported-attribute", message, hint);
}

const Type& NodeContext::type(std::size_t i) const {
  static const Type kUnknown;
  return has_input(i) ? input(i)->type : kUnknown;
}

std::optional<std::size_t> NodeContext::rank(std::size_t i) const {
  const Shape& s = shape(i);
  return s.has_rank() ? std::optional(s.rank()) : std::nullopt;
}

std::size_t NodeContext::known_rank(std::size_t i) const {
  const auto r = rank(i);
  if (!r)
    throw Error("unknown-rank", "the rank of input " + std::to_string(i) + " is not known",
                "give the input shapes with --input_shape name:1,3,224,224");
  return *r;
}

const ir::Tensor* NodeContext::constant(std::size_t i) const {
  return has_input(i) ? input(i)->constant.get() : nullptr;
}

std::optional<Ints> NodeContext::const_ints(std::size_t i) const {
  if (const ir::Tensor* t = constant(i)) return t->to_ints();
  const auto dims = contents(i);
  if (!dims) return std::nullopt;
  Ints out;
  for (const Dim& d : *dims) {
    if (!d.is_const()) return std::nullopt;
    out.push_back(d.value());
  }
  return out;
}

std::optional<Dims> NodeContext::contents(std::size_t i) const {
  // Longer vectors are data, not shapes.
  constexpr std::int64_t kMaxElements = 1024;
  if (!has_input(i)) return std::nullopt;
  const ir::Value* v = input(i);
  if (v->constant) {
    const ir::Tensor& t = *v->constant;
    if (t.rank() > 1 || t.size() > kMaxElements || !ir::is_integer(t.dtype())) return std::nullopt;
    const Ints ints = t.to_ints();
    // Above the signed range there are no sizes.
    if (ir::is_unsigned(t.dtype()) &&
        std::any_of(ints.begin(), ints.end(), [](std::int64_t n) { return n < 0; }))
      return std::nullopt;
    return Dims(ints.begin(), ints.end());
  }
  return v->contents;
}

const ir::Attribute* NodeContext::find(std::string_view name) const {
  for (std::size_t i = 0; i < node_.attributes.size(); ++i) {
    if (node_.attributes[i].name != name) continue;
    read_[i] = true;
    return &node_.attributes[i];
  }
  return nullptr;
}

template <typename T>
const T* NodeContext::get(std::string_view name) const {
  const ir::Attribute* a = find(name);
  if (a == nullptr) return nullptr;
  const T* v = std::get_if<T>(&a->data);
  if (v == nullptr)
    throw Error("bad-model", "the attribute \"" + std::string(name) + "\" has the wrong type");
  return v;
}

bool NodeContext::has_attr(std::string_view name) const {
  return find(name) != nullptr;
}

std::int64_t NodeContext::attr_int(std::string_view name, std::int64_t otherwise) const {
  const auto* v = get<std::int64_t>(name);
  return v != nullptr ? *v : otherwise;
}

std::int64_t NodeContext::attr_int(std::string_view name) const {
  const auto* v = get<std::int64_t>(name);
  if (v == nullptr)
    throw Error("bad-model", "the attribute \"" + std::string(name) + "\" is missing");
  return *v;
}

double NodeContext::attr_float(std::string_view name, double otherwise) const {
  const ir::Attribute* a = find(name);
  if (a == nullptr) return otherwise;
  const std::optional<double> v = a->number();
  return v ? *v : *get<double>(name);
}

std::string NodeContext::attr_string(std::string_view name, std::string_view otherwise) const {
  const auto* v = get<std::string>(name);
  return v != nullptr ? *v : std::string(otherwise);
}

std::optional<Ints> NodeContext::attr_ints(std::string_view name) const {
  const ir::Attribute* a = find(name);
  if (a == nullptr) return std::nullopt;
  // An empty list carries no type in old files.
  if (const auto* f = std::get_if<std::vector<double>>(&a->data); f != nullptr && f->empty())
    return Ints{};
  const auto* v = get<Ints>(name);
  return *v;
}

std::optional<std::vector<double>> NodeContext::attr_floats(std::string_view name) const {
  const ir::Attribute* a = find(name);
  if (a == nullptr) return std::nullopt;
  if (const auto* f = std::get_if<Ints>(&a->data); f != nullptr && f->empty())
    return std::vector<double>{};
  return *get<std::vector<double>>(name);
}

std::optional<std::vector<std::string>> NodeContext::attr_strings(std::string_view name) const {
  const ir::Attribute* a = find(name);
  if (a == nullptr) return std::nullopt;
  if (const auto* f = std::get_if<Ints>(&a->data); f != nullptr && f->empty())
    return std::vector<std::string>{};
  return *get<std::vector<std::string>>(name);
}

ir::TensorPtr NodeContext::attr_tensor(std::string_view name) const {
  const auto* v = get<ir::TensorPtr>(name);
  return v != nullptr ? *v : nullptr;
}

ir::Graph* NodeContext::attr_graph(std::string_view name) const {
  const auto* v = get<std::unique_ptr<ir::Graph>>(name);
  if (v == nullptr)
    throw Error("bad-model", "the attribute \"" + std::string(name) + "\" is missing");
  return v->get();
}

DType NodeContext::attr_dtype(std::string_view name, DType otherwise) const {
  const ir::Attribute* a = find(name);
  if (a == nullptr) return otherwise;
  // Opset 1 of Cast spelled the type as text.
  if (const auto* s = std::get_if<std::string>(&a->data)) {
    static constexpr std::pair<std::string_view, DType> kNames[] = {
        {"FLOAT", DType::Float32},   {"UINT8", DType::UInt8},    {"INT8", DType::Int8},
        {"UINT16", DType::UInt16},   {"INT16", DType::Int16},    {"INT32", DType::Int32},
        {"INT64", DType::Int64},     {"STRING", DType::String},  {"BOOL", DType::Bool},
        {"FLOAT16", DType::Float16}, {"DOUBLE", DType::Float64}, {"UINT32", DType::UInt32},
        {"UINT64", DType::UInt64}};
    for (const auto& [text, dtype] : kNames)
      if (*s == text) return dtype;
    throw Error("bad-model", "the attribute \"" + std::string(name) + "\" names no element type");
  }
  const std::int64_t v = attr_int(name);
  if (v == 0) return otherwise;
  if (v < 0 || v >= ir::kDTypeCount)
    throw Error("bad-model", "the attribute \"" + std::string(name) +
                                 "\" names the unknown element type " + std::to_string(v));
  return static_cast<DType>(v);
}

std::optional<Ints> NodeContext::ints(std::string_view attribute, std::size_t i) const {
  if (auto v = attr_ints(attribute)) return v;
  return const_ints(i);
}

bool NodeContext::has_ints(std::string_view attribute, std::size_t i) const {
  return node_.attribute(attribute) != nullptr || has_input(i);
}

std::int64_t NodeContext::axis(std::int64_t a, std::size_t rank) const {
  const auto r = static_cast<std::int64_t>(rank);
  if (a < -r || a >= r)
    throw Error("bad-model",
                "axis " + std::to_string(a) + " is out of range for rank " + std::to_string(r));
  return a < 0 ? a + r : a;
}

Ints NodeContext::axes(Ints list, std::size_t rank) const {
  for (std::int64_t& a : list) a = axis(a, rank);
  return list;
}

std::vector<bool> NodeContext::axis_mask(const Ints& list, std::size_t rank) const {
  std::vector<bool> mask(rank, false);
  for (const std::int64_t a : list) mask[static_cast<std::size_t>(axis(a, rank))] = true;
  return mask;
}

std::vector<std::string> NodeContext::unread_attributes() const {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < read_.size(); ++i)
    if (!read_[i]) out.push_back(node_.attributes[i].name);
  return out;
}

bool is_not_negative(const Dim& d) {
  return d.never_negative();
}

Dim broadcast(const Dim& a, const Dim& b) {
  if (a.is_const() && a.value() == 1) return b;
  if (b.is_const() && b.value() == 1) return a;
  if (a.is_const() && b.is_const() && a.value() != b.value())
    throw Error("bad-model", "dimensions " + a.str() + " and " + b.str() + " do not broadcast");
  if (a == b) return a;
  // A number above one wins over what is not known: that may only be the same, or one.
  if (a.is_const()) return a;
  if (b.is_const()) return b;
  return Dim::unknown();
}

Shape broadcast(const Shape& a, const Shape& b) {
  if (!a.has_rank() || !b.has_rank()) return {};
  const std::size_t rank = std::max(a.rank(), b.rank());
  Dims out(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t skip_a = rank - a.rank();
    const std::size_t skip_b = rank - b.rank();
    if (i < skip_a) {
      out[i] = b[i - skip_b];
    } else if (i < skip_b) {
      out[i] = a[i - skip_a];
    } else {
      out[i] = broadcast(a[i - skip_a], b[i - skip_b]);
    }
  }
  return Shape(std::move(out));
}

namespace {

/// Sequences of sequences of sequences: what walks a type does so by recursion.
bool nests_deeply(const Type& type) {
  constexpr int kMaxDepth = 64;
  int depth = 0;
  for (const Type* t = type.element.get(); t != nullptr; t = t->element.get())
    if (++depth > kMaxDepth) return true;
  return false;
}

}  // namespace

void InferContext::set(std::size_t i, Type type) {
  ir::Value* v = node_.output(i);
  if (v == nullptr) return;
  if (nests_deeply(type)) throw Error("too-large", "an output is a sequence nested too deeply");
  if (type.shape.has_rank() && type.shape.rank() > ir::kMaxRank)
    throw Error("too-large", "an output would have " + std::to_string(type.shape.rank()) +
                                 " dimensions, and torch has at most " +
                                 std::to_string(ir::kMaxRank));
  // Less than nothing is no size: the node fails when it runs, if ever it does.
  for (Dim& d : type.shape.dims())
    if (d.is_const() && d.value() < 0) d = Dim::unknown();
  v->type = ir::merge(type, v->type);
}

void InferContext::set_contents(std::size_t i, Dims contents) {
  ir::Value* v = node_.output(i);
  if (v == nullptr) return;
  // Both are what the model says, and it may contradict itself.
  const Shape& s = v->type.shape;
  const auto count = static_cast<std::int64_t>(contents.size());
  const bool fits = !s.has_rank() || (s.rank() == 0 && count == 1) ||
                    (s.rank() == 1 && (!s[0].is_const() || s[0].value() == count));
  if (!fits) return;
  // Arithmetic that wraps round in the element type is not that of sizes.
  if (std::all_of(contents.begin(), contents.end(),
                  [v](const Dim& d) { return !d.is_const() || ir::holds(v->type.dtype, d.value()); }))
    v->contents = std::move(contents);
}

bool FoldContext::all_constant() const {
  for (std::size_t i = 0; i < input_count(); ++i)
    if (has_input(i) && !input(i)->constant) return false;
  return true;
}

void FoldContext::set(std::size_t i, ir::TensorPtr tensor) {
  if (results.size() <= i) results.resize(i + 1);
  results[i].tensor = std::move(tensor);
}

void FoldContext::set(std::size_t i, ir::Value* value) {
  if (results.size() <= i) results.resize(i + 1);
  results[i].value = value;
}

Diagnostic diagnose(const ir::Node& node, const Error& error) {
  Diagnostic d;
  d.severity = Severity::Error;
  d.code = error.code();
  d.message = node.op_type + ": " + error.what();
  d.node = node.name;
  d.op_type = node.op_type;
  d.domain = node.domain;
  d.opset = node.opset;
  d.hint = error.hint();
  constexpr std::size_t kLongestName = 500;
  constexpr std::size_t kMostText = 4000;
  for (std::size_t i = 0; i < node.input_count(); ++i) {
    if (i > 0) d.inputs += "\n";
    if (d.inputs.size() > kMostText) {
      d.inputs += fmt::format("({} more)", node.input_count() - i);
      break;
    }
    const ir::Value* v = node.input(i);
    d.inputs += v != nullptr ? v->name.substr(0, kLongestName) + "  " + v->type.str() : "(absent)";
  }
  return d;
}

}  // namespace onnx2nn::ops
