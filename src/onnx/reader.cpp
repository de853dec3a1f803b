#include "onnx/reader.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "onnx/external_data.h"
#include "onnx/file_kind.h"
#include "onnx/tensor_reader.h"
#include "onnx/wire.h"
#include "support/interrupt.h"
#include "support/text.h"

namespace onnx2nn::onnx {
namespace {

using ir::Attribute;
using ir::DType;
using ir::Graph;
using ir::Node;
using ir::Type;
using ir::Value;
using wire::Reader;

// Graphs in graphs, functions in functions, types in types: a real model needs three or four.
constexpr int kMaxDepth = 48;
// A longer name of a caller is not repeated in the names of what it calls.
constexpr std::size_t kMaxPrefix = 512;

struct RawNode {
  std::vector<std::string_view> inputs;
  std::vector<std::string_view> outputs;
  std::string_view name, op_type, domain, overload, doc_string;
  std::vector<Reader> attributes;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::uint64_t offset = 0;
};

using AttributesByName = std::unordered_map<std::string_view, Reader>;

struct Function {
  std::string_view name, domain, overload;
  std::vector<std::string_view> inputs, outputs;
  std::vector<RawNode> nodes;
  AttributesByName attribute_defaults;
  std::map<std::string, std::int64_t> opsets;
};

/// Attributes of the node that calls a function, for `ref_attr_name`.
struct CallAttributes {
  AttributesByName given;
  const AttributesByName* defaults = nullptr;
  const CallAttributes* outer = nullptr;
};

/// Names that a graph can see: its own, then its outer graphs'.
struct Scope {
  std::unordered_map<std::string_view, Value*> values;
  const Scope* outer = nullptr;
  const std::vector<RawNode>* nodes = nullptr;
  std::unordered_map<std::string_view, std::size_t> producers;  // indices of nodes
  Value* find(std::string_view name) const {
    for (const Scope* s = this; s != nullptr; s = s->outer)
      if (const auto it = s->values.find(name); it != s->values.end()) return it->second;
    return nullptr;
  }
};

std::string canonical_domain(std::string_view domain) {
  return domain == "ai.onnx" ? std::string() : std::string(domain);
}

std::pair<std::string, std::string> read_entry(Reader m) {
  std::pair<std::string, std::string> out;
  while (m.next()) {
    if (m.field() == 1) {
      out.first = m.string();
    } else if (m.field() == 2) {
      out.second = m.string();
    } else {
      m.skip();
    }
  }
  return out;
}

std::pair<std::string, std::int64_t> read_opset(Reader m) {
  std::pair<std::string, std::int64_t> out{"", 0};
  while (m.next()) {
    if (m.field() == 1) {
      out.first = canonical_domain(m.text());
    } else if (m.field() == 2) {
      out.second = m.int64();
    } else {
      m.skip();
    }
  }
  return out;
}

RawNode read_node(Reader m) {
  check_interrupt();
  RawNode n;
  n.offset = m.offset();
  while (m.next()) {
    switch (m.field()) {
      case 1:
        n.inputs.push_back(m.text());
        break;
      case 2:
        n.outputs.push_back(m.text());
        break;
      case 3:
        n.name = m.text();
        break;
      case 4:
        n.op_type = m.text();
        break;
      case 5:
        n.attributes.push_back(m.message("AttributeProto"));
        break;
      case 6:
        n.doc_string = m.text();
        break;
      case 7:
        n.domain = m.text();
        break;
      case 8:
        n.overload = m.text();
        break;
      case 9:
        n.metadata.push_back(read_entry(m.message("StringStringEntryProto")));
        break;
      default:
        m.skip();
    }
  }
  return n;
}

bool is_gradient(const RawNode& n) {
  return n.op_type == "Gradient" && n.domain == "ai.onnx.preview.training";
}

/// The text in `field` of a message, the last one where it repeats: the name that it goes by.
std::string_view text_field(Reader m, std::uint32_t field) {
  std::string_view text;
  while (m.next()) {
    if (m.field() == field) {
      text = m.text();
    } else {
      m.skip();
    }
  }
  return text;
}

/// Gradient's attribute "y": it names the value that is differentiated.
std::string_view gradient_target(const RawNode& n) {
  for (const Reader& a : n.attributes)
    if (text_field(a, 1) == "y") return text_field(a, 4);
  return {};
}

class Importer {
 public:
  Importer(std::shared_ptr<const InputFile> file, const ReadOptions& options,
           Diagnostics& diagnostics)
      : file_(file),
        model_(std::make_unique<ir::Model>(file->size())),
        tensors_(file,
                 ExternalData(file->on_disk() ? file->path() : "", options.folder,
                              options.data_roots),
                 model_->budget()),
        drop_undefined_outputs_(options.drop_undefined_outputs),
        diagnostics_(diagnostics) {}

  std::unique_ptr<ir::Model> run() {
    Reader m(file_->place(), 0, "ModelProto", file_.get());
    std::optional<Reader> graph;
    auto& info = model_->info;
    while (m.next()) {
      switch (m.field()) {
        case 1:
          info.ir_version = m.int64();
          break;
        case 2:
          info.producer_name = m.string();
          break;
        case 3:
          info.producer_version = m.string();
          break;
        case 4:
          info.domain = m.string();
          break;
        case 5:
          info.model_version = m.int64();
          break;
        case 6:
          info.doc_string = m.string();
          break;
        case 7:
          graph = m.message("GraphProto");
          break;
        case 8: {
          const auto [domain, version] = read_opset(m.message("OperatorSetIdProto"));
          info.opsets[domain] = version;
          break;
        }
        case 14:
          info.metadata.push_back(read_entry(m.message("StringStringEntryProto")));
          break;
        case 25:
          read_function(m.message("FunctionProto"));
          break;
        default:
          m.skip();
      }
    }
    if (!graph) throw Error("bad-model", "the file holds no graph", "is it an ONNX model?");
    // IR versions below 3 had no opset_import: opset 1 is meant.
    if (info.opsets.empty()) info.opsets[""] = 1;
    opsets_ = &info.opsets;
    Scope scope;
    read_graph(*graph, *model_->graph, scope, {}, 0);
    info.weights_are_inputs = weights_are_inputs();
    return std::move(model_);
  }

 private:
  bool weights_are_inputs() const {
    constexpr std::int64_t kFreeInitializers =
        4;  // IR version from which weights need not be inputs
    constexpr std::int64_t kLastOfOldExporters = 6;
    if (model_->info.ir_version < kFreeInitializers) return true;
    if (model_->info.ir_version > kLastOfOldExporters) return false;
    const auto& list = model_->graph->initializers;
    const auto listed =
        std::count_if(list.begin(), list.end(), [](const Value* v) { return v->is_graph_input; });
    const auto weights =
        std::count_if(list.begin(), list.end(), [](const Value* v) { return v->is_initializer; });
    return listed > 1 && listed == weights;
  }

  void read_function(Reader m) {
    Function f;
    while (m.next()) {
      switch (m.field()) {
        case 1:
          f.name = m.text();
          break;
        case 4:
          f.inputs.push_back(m.text());
          break;
        case 5:
          f.outputs.push_back(m.text());
          break;
        case 7:
          f.nodes.push_back(read_listed_node(m.message("NodeProto")));
          break;
        case 9: {
          const auto [domain, version] = read_opset(m.message("OperatorSetIdProto"));
          f.opsets[domain] = version;
          break;
        }
        case 10:
          f.domain = m.text();
          break;
        case 11: {
          const Reader a = m.message("AttributeProto");
          f.attribute_defaults.emplace(text_field(a, 1), a);
          break;
        }
        case 13:
          f.overload = m.text();
          break;
        default:
          m.skip();
      }
    }
    functions_[function_key(f.domain, f.name, f.overload)] = std::move(f);
  }

  static std::string function_key(std::string_view domain, std::string_view name,
                                  std::string_view overload) {
    std::string key = canonical_domain(domain);
    key += '\0';
    key += name;
    key += '\0';
    key += overload;
    return key;
  }

  // -------------------------------------------------------------- types

  ir::Dim dim_symbol(std::string_view name) {
    if (name.empty()) return ir::Dim::unknown();
    const auto it = symbols_.find(std::string(name));
    if (it != symbols_.end()) return ir::Dim::symbol(it->second);
    const std::string id = model_->info.add_symbol(name);
    symbols_[std::string(name)] = id;
    return ir::Dim::symbol(id);
  }

  ir::Shape read_shape(Reader m) {
    ir::Dims dims;
    while (m.next()) {
      if (m.field() != 1) {
        m.skip();
        continue;
      }
      Reader d = m.message("TensorShapeProto.Dimension");
      ir::Dim dim;
      while (d.next()) {
        if (d.field() == 1) {
          const std::int64_t v = d.int64();
          // Exporters write -1, and more often 0, for a size that they do not know. What is right
          // for any size is right for an empty tensor too.
          dim = v > 0 ? ir::Dim(v) : ir::Dim::unknown();
          open_as_number_ = open_as_number_ || v <= 0;
        } else if (d.field() == 2) {
          dim = dim_symbol(d.text());
        } else {
          d.skip();
        }
      }
      dims.push_back(dim);
    }
    return ir::Shape(std::move(dims));
  }

  DType read_dtype(Reader& m) {
    const std::int32_t v = m.int32();
    return v > 0 && v < ir::kDTypeCount ? static_cast<DType>(v) : DType::Undefined;
  }

  Type read_type(Reader m, int depth) {
    if (depth > kMaxDepth) m.fail("types are nested too deeply");
    Type type;
    while (m.next()) {
      const std::uint32_t field = m.field();
      if (field != 1 && field != 4 && field != 5 && field != 8 && field != 9) {
        m.skip();
        continue;
      }
      Reader t = m.message("TypeProto");
      Type element;
      while (t.next()) {
        if ((field == 1 || field == 8 || field == 5) && t.field() == 1) {
          type.dtype = read_dtype(t);
        } else if ((field == 1 || field == 8) && t.field() == 2) {
          type.shape = read_shape(t.message("TensorShapeProto"));
        } else if (((field == 4 || field == 9) && t.field() == 1) ||
                   (field == 5 && t.field() == 2)) {
          element = read_type(t.message("TypeProto"), depth + 1);
        } else {
          t.skip();
        }
      }
      type.kind = field == 1   ? Type::Kind::Tensor
                  : field == 8 ? Type::Kind::SparseTensor
                  : field == 4 ? Type::Kind::Sequence
                  : field == 9 ? Type::Kind::Optional
                               : Type::Kind::Map;
      if (field == 4 || field == 5 || field == 9)
        type.element = std::make_shared<const Type>(std::move(element));
    }
    return type;
  }

  struct NamedType {
    std::string_view name;
    Type type;
    ir::ValueInfo info;
  };

  NamedType read_value_info(Reader m) {
    NamedType out;
    while (m.next()) {
      switch (m.field()) {
        case 1:
          out.name = m.text();
          break;
        case 2: {
          Reader again = m;
          open_as_number_ = false;
          out.type = read_type(m.message("TypeProto"), 0);
          out.info.type_proto = again.string();
          out.info.open_as_number = open_as_number_;
          break;
        }
        case 3:
          out.info.doc_string = m.string();
          break;
        case 4:
          out.info.metadata.push_back(read_entry(m.message("StringStringEntryProto")));
          break;
        default:
          m.skip();
      }
    }
    return out;
  }

  // -------------------------------------------------------------- graphs

  enum class WeightKind : std::uint8_t { Unsaid, Weight, Constant };

  /// What torch's exporter notes of what its module had: a buffer that was no entry of the state_dict,
  /// or a tensor in the code, is a constant.
  static WeightKind weight_kind(const ir::ValueInfo& info) {
    WeightKind kind = WeightKind::Unsaid;
    bool saved = true;
    for (const auto& [key, value] : info.metadata) {
      if (key == "pkg.torch.export.graph_signature.InputSpec.persistent") saved = value != "False";
      if (key == "pkg.torch.export.graph_signature.InputSpec.kind")
        kind = value == "CONSTANT_TENSOR" ? WeightKind::Constant : WeightKind::Weight;
    }
    return saved ? kind : WeightKind::Constant;
  }

  /// Of what the exporter tells nothing, where it tells of others, it computed itself. The weights of
  /// layers are among it, transposed.
  static void find_constants(const Graph& graph,
                             const std::unordered_map<std::string_view, WeightKind>& kinds) {
    if (kinds.empty()) return;
    for (Value* v : graph.initializers) {
      const auto it = kinds.find(v->name);
      const std::vector<ir::Use*> uses = v->uses();
      const bool of_layer = std::any_of(uses.begin(), uses.end(), [](const ir::Use* use) {
        const Node& user = *use->user;
        return user.is("MatMul") || user.is("Gemm") || user.is("Conv") ||
               user.is("ConvTranspose") || user.is("LSTM") || user.is("GRU") || user.is("RNN");
      });
      const bool constant = it == kinds.end() ? !of_layer : it->second == WeightKind::Constant;
      if (constant) v->is_initializer = false;
    }
  }

  void read_graph(Reader m, Graph& graph, Scope& scope, const CallAttributes& call, int depth) {
    if (depth > kMaxDepth) m.fail("graphs are nested too deeply");
    std::vector<RawNode> nodes;
    std::vector<NamedType> inputs;
    std::vector<NamedType> outputs;
    std::unordered_map<std::string_view, Type> value_infos;
    std::unordered_map<std::string_view, WeightKind> weight_kinds;
    std::vector<TensorReader::Named> initializers;
    while (m.next()) {
      switch (m.field()) {
        case 1:
          nodes.push_back(read_listed_node(m.message("NodeProto")));
          break;
        case 2:
          graph.name = m.string();
          break;
        case 5:
          initializers.push_back(tensors_.read(m.message("TensorProto")));
          break;
        case 10:
          graph.doc_string = m.string();
          break;
        case 11:
          inputs.push_back(read_value_info(m.message("ValueInfoProto")));
          break;
        case 12:
          outputs.push_back(read_value_info(m.message("ValueInfoProto")));
          break;
        case 13: {
          NamedType declared = read_value_info(m.message("ValueInfoProto"));
          if (const WeightKind kind = weight_kind(declared.info); kind != WeightKind::Unsaid)
            weight_kinds.emplace(declared.name, kind);
          value_infos[declared.name] = std::move(declared.type);
          break;
        }
        case 15:
          initializers.push_back(tensors_.read_sparse(m.message("SparseTensorProto")));
          break;
        case 16:
          graph.metadata.push_back(read_entry(m.message("StringStringEntryProto")));
          break;
        default:
          m.skip();
      }
    }
    const std::size_t values =
        inputs.size() + outputs.size() + value_infos.size() + initializers.size();
    model_->budget().charge(Resource::Bytes, values * sizeof(Value), "the graph " + graph.name);
    for (auto& [name, type, info] : inputs) {
      if (scope.values.count(name) != 0)
        throw Error("bad-model", "the graph input \"" + std::string(name) + "\" is there twice");
      Value* v = graph.new_value(std::string(name));
      v->type = std::move(type);
      v->is_graph_input = true;
      graph.inputs.push_back(v);
      graph.input_infos.push_back(std::move(info));
      scope.values[name] = v;
    }
    for (auto& [name, tensor] : initializers) {
      const auto it = scope.values.find(name);
      if (it != scope.values.end() && it->second->is_graph_input && !it->second->constant) {
        Value* v = it->second;  // an input with a default: the initialiser
        v->constant = tensor;
        v->is_initializer = true;
        v->type = Type::tensor(tensor->dtype(), ir::Shape::of(tensor->dims()));
        graph.initializers.push_back(v);
        continue;
      }
      if (it != scope.values.end())
        throw Error("bad-model", "the initialiser \"" + name + "\" is there twice");
      Value* v = graph.add_initializer(name, tensor, true);
      scope.values[keep(name)] = v;
    }
    for (std::size_t i = 0; i < graph.inputs.size(); ++i)
      graph.input_infos[i].type = graph.inputs[i]->type.str();
    add_nodes(graph, nodes, scope, call, *opsets_, "", depth);
    find_constants(graph, weight_kinds);
    if (depth == 0) drop_undefined(outputs, scope);
    for (auto& [name, type, info] : outputs) {
      Value* v = scope.find(name);
      if (v == nullptr)
        throw Error("bad-model", "the graph output \"" + std::string(name) + "\" is not defined");
      info.type = type.str();
      graph.output_infos.push_back(std::move(info));
      graph.add_output(v, std::string(name), std::move(type));
    }
    // Declared types are hints: their symbols mean nothing elsewhere.
    const auto hint = [&](std::string_view name, const Type& declared) {
      const auto it = scope.values.find(name);
      if (it == scope.values.end() || it->second->producer() == nullptr) return;
      it->second->type = without_symbols(declared);
      if (it->second->type.str() != declared.str())
        it->second->declared = std::make_shared<const ir::Shape>(declared.shape);
    };
    for (const auto& [name, type] : value_infos) hint(name, type);
    for (std::size_t i = 0; i < graph.output_count(); ++i)
      hint(graph.output_names[i], graph.output_types[i]);
  }

  /// Some exporters list outputs of the model that no node makes.
  void drop_undefined(std::vector<NamedType>& outputs, const Scope& scope) {
    std::vector<std::string> names;
    for (const NamedType& o : outputs)
      if (scope.find(o.name) == nullptr) names.push_back("\"" + printable(o.name) + "\"");
    if (names.empty()) return;
    const std::string what = (names.size() == 1 ? "the graph output " : "the graph outputs ") +
                             fmt::format("{}", fmt::join(names, ", "));
    const std::string is = names.size() == 1 ? " is" : " are";
    if (names.size() == outputs.size())
      throw Error("bad-model", what + is + " not defined, and there is no other");
    if (!drop_undefined_outputs_)
      throw Error("bad-model", what + is + " not defined",
                  "--drop-undefined-outputs converts the model without " +
                      std::string(names.size() == 1 ? "it" : "them"));
    std::erase_if(outputs, [&](const NamedType& o) { return scope.find(o.name) == nullptr; });
    diagnostics_.add(Severity::Warning, "undefined-output", what + is + " not defined: left out");
  }

  static Type without_symbols(Type type) {
    for (ir::Dim& d : type.shape.dims())
      if (!d.is_const()) d = ir::Dim::unknown();
    return type;
  }

  std::string_view keep(const std::string& name) { return *kept_.insert(name).first; }

  /// Adds `nodes` in an order in which everything is defined before it is used.
  void add_nodes(Graph& graph, const std::vector<RawNode>& nodes, Scope& scope,
                 const CallAttributes& call, const std::map<std::string, std::int64_t>& opsets,
                 const std::string& prefix, int depth) {
    const std::vector<std::size_t> order = topological_order(nodes, scope);
    scope.nodes = &nodes;
    for (const std::size_t i : order) add_node(graph, nodes[i], scope, call, opsets, prefix, depth);
    scope.nodes = nullptr;
  }

  /// The names that a node reads: its inputs, what its nested graphs capture, Gradient's target.
  std::vector<std::string_view> used_names(const RawNode& n, int depth) {
    std::vector<std::string_view> used = n.inputs;
    for (const Reader& a : n.attributes) captured_in_attribute(a, used, depth);
    if (is_gradient(n)) used.push_back(gradient_target(n));
    return used;
  }

  // Names that a nested graph uses and that are defined outside of it.
  void captured_names(Reader graph, std::vector<std::string_view>& out, int depth) {
    if (depth > kMaxDepth) graph.fail("graphs are nested too deeply");
    std::vector<std::string_view> used;
    std::unordered_set<std::string_view> defined;
    while (graph.next()) {
      if (graph.field() == 1) {
        const RawNode n = read_node(graph.message("NodeProto"));
        const std::vector<std::string_view> names = used_names(n, depth + 1);
        used.insert(used.end(), names.begin(), names.end());
        defined.insert(n.outputs.begin(), n.outputs.end());
      } else if (graph.field() == 11) {
        defined.insert(text_field(graph.message("ValueInfoProto"), 1));
      } else if (graph.field() == 12) {
        used.push_back(text_field(graph.message("ValueInfoProto"), 1));
      } else if (graph.field() == 5) {
        defined.insert(text_field(graph.message("TensorProto"), 8));
      } else {
        graph.skip();
      }
    }
    for (const std::string_view name : used)
      if (defined.count(name) == 0) out.push_back(name);
  }

  void captured_in_attribute(Reader a, std::vector<std::string_view>& out, int depth) {
    while (a.next()) {
      if (a.field() == 6 || a.field() == 11) {
        captured_names(a.message("GraphProto"), out, depth);
      } else {
        a.skip();
      }
    }
  }

  std::vector<std::size_t> topological_order(const std::vector<RawNode>& nodes,
                                             Scope& scope) {
    auto& producer = scope.producers;
    std::unordered_set<std::size_t> replaced;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      for (const std::string_view o : nodes[i].outputs) {
        if (o.empty()) continue;
        const auto [first, fresh] = producer.emplace(o, i);
        // Some tools write a Constant's name twice. As in ONNX Runtime, the last one is meant
        // everywhere.
        if (!fresh && nodes[i].op_type == "Constant" &&
            nodes[first->second].op_type == "Constant") {
          replaced.insert(first->second);
          first->second = i;
          continue;
        }
        if (!fresh || scope.values.count(o) != 0)
          throw Error("bad-model", "the value \"" + std::string(o) +
                                       "\" is defined twice, by the node \"" +
                                       std::string(nodes[i].name) + "\" (" +
                                       std::string(nodes[i].op_type) + ") too");
      }
    }
    std::vector<std::vector<std::size_t>> needed_by(nodes.size());
    std::vector<std::size_t> missing(nodes.size(), 0);
    bool sorted = true;
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      for (const std::string_view u : used_names(nodes[i], 0)) {
        const auto it = producer.find(u);
        if (it == producer.end()) continue;
        if (it->second >= i) sorted = false;
        needed_by[it->second].push_back(i);
        ++missing[i];
      }
    }
    std::vector<std::size_t> order;
    order.reserve(nodes.size());
    if (sorted) {
      for (std::size_t i = 0; i < nodes.size(); ++i)
        if (replaced.count(i) == 0) order.push_back(i);
      return order;
    }
    std::set<std::size_t> ready;
    for (std::size_t i = 0; i < nodes.size(); ++i)
      if (missing[i] == 0) ready.insert(i);
    while (!ready.empty()) {
      const std::size_t i = *ready.begin();
      ready.erase(ready.begin());
      if (replaced.count(i) == 0) order.push_back(i);
      for (const std::size_t user : needed_by[i])
        if (--missing[user] == 0) ready.insert(user);
    }
    if (order.size() + replaced.size() != nodes.size()) {
      for (std::size_t i = 0; i < nodes.size(); ++i)
        if (missing[i] != 0)
          throw Error("bad-model", "the graph has a cycle through the node \"" +
                                       std::string(nodes[i].name) + "\" (" +
                                       std::string(nodes[i].op_type) + ")");
    }
    return order;
  }

  void add_node(Graph& graph, const RawNode& raw, Scope& scope, const CallAttributes& call,
                const std::map<std::string, std::int64_t>& opsets, const std::string& prefix,
                int depth) {
    check_interrupt();
    std::vector<Value*> inputs;
    for (const std::string_view name : raw.inputs) {
      if (name.empty()) {
        inputs.push_back(nullptr);
        continue;
      }
      Value* v = scope.find(name);
      if (v == nullptr)
        throw Error("bad-model", "node \"" + std::string(raw.name) + "\" (" +
                                     std::string(raw.op_type) + ") at byte " +
                                     std::to_string(raw.offset) + " uses the value \"" +
                                     std::string(name) + "\", which nothing defines");
      inputs.push_back(v);
    }
    if (const auto it = functions_.find(function_key(raw.domain, raw.op_type, raw.overload));
        it != functions_.end())
      return inline_function(graph, it->second, raw, inputs, scope, call, prefix, depth);
    charge(raw, prefix);
    const std::string domain = canonical_domain(raw.domain);
    if (raw.op_type == "Constant" && domain.empty() && raw.outputs.size() == 1) {
      if (ir::TensorPtr t = constant_tensor(raw, call, depth)) {
        Value* v = graph.add_initializer(prefix + std::string(raw.outputs[0]), t, false);
        scope.values[raw.outputs[0]] = v;
        return;
      }
    }
    std::vector<std::string> outputs;
    outputs.reserve(raw.outputs.size());
    for (const std::string_view o : raw.outputs)
      outputs.push_back(o.empty() ? "" : prefix + std::string(o));
    Node* n = graph.add_node(std::string(raw.op_type), domain, inputs, outputs);
    if (!raw.name.empty()) n->name = prefix + std::string(raw.name);
    n->overload = raw.overload;
    n->doc_string = raw.doc_string;
    n->metadata = raw.metadata;
    const auto version = opsets.find(domain);
    n->opset = version == opsets.end() ? 1 : version->second;
    for (const Reader& a : raw.attributes)
      if (auto attribute = read_attribute(a, n, &graph, scope, call, depth))
        n->attributes.push_back(std::move(*attribute));
    if (raw.op_type == "If" && domain.empty())
      for (Graph* branch : n->subgraphs()) bind_branch_inputs(*branch, scope);
    if (is_gradient(raw))
      n->attributes.insert(
          n->attributes.begin(),
          {"function", differentiated(*n, gradient_target(raw), scope, call, opsets, depth + 1)});
    for (std::size_t i = 0; i < raw.outputs.size(); ++i)
      if (Value* v = n->output(i)) scope.values[raw.outputs[i]] = v;
  }

  /// The branches of an If have no inputs; some writers list what they use of the graph around, or
  /// their own initialisers.
  static void bind_branch_inputs(Graph& branch, const Scope& scope) {
    std::vector<Value*> left;
    std::vector<ir::ValueInfo> infos;
    for (std::size_t i = 0; i < branch.inputs.size(); ++i) {
      Value* v = branch.inputs[i];
      if (v->constant) {
        v->is_graph_input = false;
      } else if (Value* outer = scope.find(v->name)) {
        v->replace_all_uses(outer);
      } else {
        left.push_back(v);
        infos.push_back(std::move(branch.input_infos[i]));
      }
    }
    branch.inputs = std::move(left);
    branch.input_infos = std::move(infos);
  }

  /// Gradient differentiates the part of the graph between the values that its attributes name: that
  /// part once more, as a graph whose inputs they are.
  std::unique_ptr<Graph> differentiated(Node& owner, std::string_view target, const Scope& scope,
                                        const CallAttributes& call,
                                        const std::map<std::string, std::int64_t>& opsets,
                                        int depth) {
    if (depth > kMaxDepth) throw Error("bad-model", "gradients are nested too deeply");
    auto graph = std::make_unique<Graph>(model_.get(), &owner);
    Scope inner;
    inner.outer = &scope;
    for (const char* attribute : {"xs", "zs"}) {
      const Attribute* a = owner.attribute(attribute);
      if (a == nullptr) continue;
      const auto* names = std::get_if<std::vector<std::string>>(&a->data);
      if (names == nullptr)
        fail("bad-model", "{}: the attribute {} is no list of names", owner.describe(), attribute);
      for (const std::string& name : *names) {
        Value* v = graph->new_value(name);
        v->is_graph_input = true;
        graph->inputs.push_back(v);
        if (!inner.values.emplace(keep(name), v).second)
          fail("bad-model", "{}: its attributes name \"{}\" twice", owner.describe(), name);
      }
    }
    add_nodes_between(*graph, target, inner, call, opsets, depth);
    Value* y = inner.find(target);
    if (y == nullptr)
      fail("bad-model", "{}: its attribute y names \"{}\", which nothing defines",
           owner.describe(), target);
    graph->add_output(y, std::string(target), {});
    return graph;
  }

  /// Adds what computes `target` from the values that `scope` holds already.
  void add_nodes_between(Graph& graph, std::string_view target, Scope& scope,
                         const CallAttributes& call,
                         const std::map<std::string, std::int64_t>& opsets, int depth) {
    const Scope* home = scope.outer;
    while (home != nullptr && (home->nodes == nullptr || home->producers.count(target) == 0))
      home = home->outer;
    if (home == nullptr) return;
    std::set<std::size_t> above;
    std::vector<std::string_view> wanted{target};
    while (!wanted.empty()) {
      const std::string_view name = wanted.back();
      wanted.pop_back();
      const auto it = home->producers.find(name);
      if (scope.values.count(name) != 0 || it == home->producers.end() ||
          !above.insert(it->second).second)
        continue;
      const auto used = used_names((*home->nodes)[it->second], depth);
      wanted.insert(wanted.end(), used.begin(), used.end());
    }
    std::vector<RawNode> nodes;
    for (const std::size_t i : above) {
      nodes.push_back((*home->nodes)[i]);
      for (std::string_view& output : nodes.back().outputs)
        if (scope.values.count(output) != 0) output = {};
    }
    // Each is looked at below, whether it is added or not.
    model_->budget().charge(Resource::Nodes, nodes.size(), "a Gradient");
    // What does not depend on the inputs is computed outside already.
    Scope order_scope;
    for (const std::size_t i : topological_order(nodes, order_scope)) {
      const auto used = used_names(nodes[i], depth);
      if (std::any_of(used.begin(), used.end(),
                      [&](std::string_view name) { return scope.values.count(name) != 0; }))
        add_node(graph, nodes[i], scope, call, opsets, "", depth);
    }
  }

  void inline_function(Graph& graph, const Function& f, const RawNode& raw,
                       const std::vector<Value*>& inputs, Scope& scope, const CallAttributes& call,
                       const std::string& prefix, int depth) {
    if (depth > kMaxDepth)
      throw Error("bad-model", "the function " + std::string(f.name) + " calls itself");
    charge(raw, prefix);
    // A body sees its inputs only, not the caller's names; an absent one stays absent.
    Scope body;
    std::vector<RawNode> nodes = f.nodes;
    std::set<std::string_view> absent;
    for (std::size_t i = 0; i < f.inputs.size(); ++i) {
      Value* v = i < inputs.size() ? inputs[i] : nullptr;
      if (v == nullptr) {
        absent.insert(f.inputs[i]);
      } else {
        body.values[f.inputs[i]] = v;
      }
    }
    for (RawNode& n : nodes)
      for (std::string_view& name : n.inputs)
        if (absent.count(name) != 0) name = {};
    CallAttributes inner{{}, &f.attribute_defaults, &call};
    for (const Reader& a : raw.attributes) inner.given.emplace(text_field(a, 1), a);
    const bool named = !raw.name.empty() && prefix.size() + raw.name.size() < kMaxPrefix;
    const std::string inner_prefix =
        (named ? prefix + std::string(raw.name)
               : prefix.substr(0, kMaxPrefix / 2) + std::string(f.name.substr(0, kMaxPrefix / 4)) +
                     "_" + std::to_string(inlined_++)) +
        "/";
    const auto* caller_opsets = std::exchange(opsets_, &f.opsets);
    add_nodes(graph, nodes, body, inner, f.opsets, inner_prefix, depth + 1);
    opsets_ = caller_opsets;
    const std::unordered_set<Value*> given(inputs.begin(), inputs.end());
    for (std::size_t i = 0; i < f.outputs.size() && i < raw.outputs.size(); ++i) {
      if (raw.outputs[i].empty()) continue;
      Value* v = body.find(f.outputs[i]);
      if (v == nullptr)
        throw Error("bad-model", "the function " + std::string(f.name) +
                                     " does not define its output \"" + std::string(f.outputs[i]) +
                                     "\"");
      if (v->producer() != nullptr && v->producer()->graph() == &graph && !renamed_.count(v) &&
          given.count(v) == 0) {
        v->name = prefix + std::string(raw.outputs[i]);  // the caller's name is the one people know
        renamed_.insert(v);
      }
      scope.values[raw.outputs[i]] = v;
    }
  }

  /// What a Constant's attribute holds, which its name promises and its type may not keep.
  template <typename T>
  static const T& held(const Attribute& a) {
    const T* value = std::get_if<T>(&a.data);
    if (value == nullptr)
      fail("bad-model", "Constant: the attribute {} has the wrong type", a.name);
    return *value;
  }

  /// Nodes that the file lists may be many; those that functions and gradients make of them are
  /// limited, and so is what they copy.
  RawNode read_listed_node(Reader m) {
    model_->budget().add_listed_nodes(1);
    return read_node(m);
  }

  void charge(const RawNode& raw, const std::string& prefix) {
    Budget& budget = model_->budget();
    const std::string_view who = raw.name.empty() ? raw.op_type : raw.name;
    budget.charge(Resource::Nodes, 1, who);
    std::uint64_t bytes = raw.inputs.size() * sizeof(ir::Use) + raw.op_type.size() +
                          raw.domain.size() + raw.name.size() + raw.doc_string.size();
    for (const std::string_view o : raw.outputs) bytes += sizeof(Value) + o.size();
    for (const auto& [key, value] : raw.metadata) bytes += key.size() + value.size();
    bytes += prefix.size() * (raw.outputs.size() + 1);
    budget.charge(Resource::Bytes, bytes, who);
  }

  ir::TensorPtr constant_tensor(const RawNode& raw, const CallAttributes& call, int depth) {
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

  /// The attribute, or nothing where it refers to one that the function's caller did not give, or
  /// holds graphs and has no `owner`.
  std::optional<Attribute> read_attribute(Reader m, Node* owner, Graph* graph, const Scope& scope,
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

  std::unique_ptr<Graph> nested(Reader m, Node* owner, const Scope& scope,
                                const CallAttributes& call, int depth) {
    auto graph = std::make_unique<Graph>(model_.get(), owner);
    Scope inner;
    inner.outer = &scope;
    read_graph(m, *graph, inner, call, depth + 1);
    return graph;
  }

  std::shared_ptr<const InputFile> file_;
  std::unique_ptr<ir::Model> model_;
  TensorReader tensors_;
  const std::map<std::string, std::int64_t>* opsets_ = nullptr;
  bool open_as_number_ = false;  // in the type that is being read
  std::map<std::string, Function> functions_;
  std::map<std::string, std::string> symbols_;
  std::set<std::string> kept_;
  std::unordered_set<Value*> renamed_;
  std::size_t inlined_ = 0;
  bool drop_undefined_outputs_;
  Diagnostics& diagnostics_;
};

}  // namespace

std::unique_ptr<ir::Model> read_model(std::shared_ptr<const InputFile> file,
                                      const ReadOptions& options, Diagnostics& diagnostics) {
  try {
    return Importer(file, options, diagnostics).run();
  } catch (const Error& e) {
    const auto kind = e.code() == "bad-model" ? recognise(*file) : std::nullopt;
    if (!kind) throw;
    throw Error("unreadable-file", "this is " + kind->what + ", not an ONNX model", kind->advice);
  }
}

}  // namespace onnx2nn::onnx
