// Attributes, the graphs that they hold, and constants.

#include "onnx/importer.h"

namespace onnx2nn::onnx {

ir::TensorPtr Importer::constant_tensor(const RawNode& raw, const CallAttributes& call, int depth) {
  for (const Reader& r : raw.attributes) {
    const auto a = read_attribute(r, nullptr, nullptr, Scope{}, call, depth);
    if (!a) continue;
    if (const auto* t = std::get_if<ir::TensorPtr>(&a->data)) return *t;
    if (a->name == "value_int") return ir::Tensor::scalar(held<std::int64_t>(*a));
    if (a->name == "value_ints") return ir::Tensor::ints(held<std::vector<std::int64_t>>(*a));
    if (a->name == "value_float")
      return ir::Tensor::from<float>(DType::Float32, {}, {static_cast<float>(held<double>(*a))});
    if (a->name == "value_floats") {
      const auto& v = held<std::vector<double>>(*a);
      return ir::Tensor::from<float>(DType::Float32, {static_cast<std::int64_t>(v.size())},
                                     std::vector<float>(v.begin(), v.end()));
    }
    if (a->name == "value_string")
      return std::make_shared<const ir::Tensor>(std::vector<std::int64_t>{},
                                                std::vector<std::string>{held<std::string>(*a)});
    if (a->name == "value_strings") {
      const auto& v = held<std::vector<std::string>>(*a);
      return std::make_shared<const ir::Tensor>(
          std::vector<std::int64_t>{static_cast<std::int64_t>(v.size())}, v);
    }
  }
  return nullptr;
}

std::optional<Attribute> Importer::read_attribute(Reader m, Node* owner, Graph* graph, const Scope& scope,
                                                  const CallAttributes& call, int depth) {
  Attribute a;
  std::int64_t type = 0;
  std::string_view reference;
  std::optional<std::int64_t> i;
  std::optional<double> f;
  std::optional<std::string> s;
  std::vector<std::int64_t> ints;
  std::vector<double> floats;
  std::vector<std::string> strings;
  ir::TensorPtr tensor;
  std::vector<ir::TensorPtr> tensors;
  std::optional<Type> type_value;
  std::vector<Reader> graphs;
  bool single_graph = false;
  while (m.next()) {
    switch (m.field()) {
      case 1:
        a.name = m.string();
        break;
      case 2:
        f = m.f32();
        break;
      case 3:
        i = m.int64();
        break;
      case 4:
        s = m.string();
        break;
      case 5:
        tensor = tensors_.read(m.message("TensorProto")).tensor;
        break;
      case 6:
        single_graph = true;
        graphs.push_back(m.message("GraphProto"));
        break;
      case 7:
        m.fixeds<float>([&](float v) { floats.push_back(v); });
        break;
      case 8:
        m.int64s([&](std::int64_t v) { ints.push_back(v); });
        break;
      case 9:
        strings.push_back(m.string());
        break;
      case 10:
        tensors.push_back(tensors_.read(m.message("TensorProto")).tensor);
        break;
      case 11:
        graphs.push_back(m.message("GraphProto"));
        break;
      case 14:
        type_value = read_type(m.message("TypeProto"), 0);
        break;
      case 20:
        type = m.int64();
        break;
      case 21:
        reference = m.text();
        break;
      case 22:
        tensor = tensors_.read_sparse(m.message("SparseTensorProto")).tensor;
        break;
      case 23:
        tensors.push_back(tensors_.read_sparse(m.message("SparseTensorProto")).tensor);
        break;
      default:
        m.skip();
    }
  }
  if (!reference.empty()) {
    static const CallAttributes kNone;
    for (const auto* list : {&call.given, call.defaults}) {
      if (list == nullptr) continue;
      const auto it = list->find(reference);
      if (it == list->end()) continue;
      auto found = read_attribute(it->second, owner, graph, scope,
                                  call.outer != nullptr ? *call.outer : kNone, depth + 1);
      if (found) found->name = a.name;
      return found;
    }
    return std::nullopt;
  }
  std::uint64_t copied = a.name.size() + 8 * (ints.size() + floats.size()) +
                         (s ? s->size() : 0) + strings.size() * sizeof(std::string);
  for (const std::string& text : strings) copied += text.size();
  model_->budget().charge(Resource::Bytes, copied, "the attribute " + a.name);
  // Files of IR version 1 have no type; what is there says it.
  if (type == 0)
    type = f                  ? 1
           : i                ? 2
           : s                ? 3
           : tensor           ? 4
           : single_graph     ? 5
           : !floats.empty()  ? 6
           : !ints.empty()    ? 7
           : !strings.empty() ? 8
                              : 7;
  const auto missing = [&]() -> Error {
    return Error("bad-model", "the attribute \"" + a.name + "\" has no value of its type");
  };
  switch (type) {
    case 1:
      a.data = f.value_or(0.0);
      break;
    case 2:
      a.data = i.value_or(0);
      break;
    case 3:
      a.data = s.value_or("");
      break;
    case 4:
    case 11:
      if (!tensor) throw missing();
      a.data = tensor;
      break;
    case 5: {
      if (graphs.size() != 1) throw missing();
      if (owner == nullptr) return std::nullopt;
      a.data = nested(graphs[0], owner, scope, call, depth);
      break;
    }
    case 6:
      a.data = std::move(floats);
      break;
    case 7:
      a.data = std::move(ints);
      break;
    case 8:
      a.data = std::move(strings);
      break;
    case 9:
    case 12:
      a.data = std::move(tensors);
      break;
    case 10: {
      if (owner == nullptr) return std::nullopt;
      Attribute::Graphs all;
      for (const Reader& g : graphs) all.push_back(nested(g, owner, scope, call, depth));
      a.data = std::move(all);
      break;
    }
    case 13:
      if (!type_value) throw missing();
      a.data = *type_value;
      break;
    default:
      throw Error("bad-model", "the attribute \"" + a.name + "\" has the unknown type " +
                                   std::to_string(type));
  }
  return a;
}

std::unique_ptr<Graph> Importer::nested(Reader m, Node* owner, const Scope& scope,
                                        const CallAttributes& call, int depth) {
  auto graph = std::make_unique<Graph>(model_.get(), owner);
  Scope inner;
  inner.outer = &scope;
  read_graph(m, *graph, inner, call, depth + 1);
  return graph;
}

}  // namespace onnx2nn::onnx
