#include "onnx/reader.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "onnx/external_data.h"
#include "onnx/file_kind.h"
#include "onnx/importer.h"
#include "support/text.h"

namespace onnx2nn::onnx {

Importer::Importer(std::shared_ptr<const InputFile> file, const ReadOptions& options,
                   Diagnostics& diagnostics)
    : file_(file),
      model_(std::make_unique<ir::Model>(file->size())),
      tensors_(file,
               ExternalData(file->on_disk() ? file->path() : "", options.folder,
                            options.data_roots),
               model_->budget(), options.external_files),
      drop_undefined_outputs_(options.drop_undefined_outputs),
      diagnostics_(diagnostics) {}

std::unique_ptr<ir::Model> Importer::run() {
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

bool Importer::weights_are_inputs() const {
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

void Importer::read_function(Reader m) {
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

std::string Importer::function_key(std::string_view domain, std::string_view name,
                                   std::string_view overload) {
  std::string key = canonical_domain(domain);
  key += '\0';
  key += name;
  key += '\0';
  key += overload;
  return key;
}

Importer::WeightKind Importer::weight_kind(const ir::ValueInfo& info) {
  WeightKind kind = WeightKind::Unsaid;
  bool saved = true;
  for (const auto& [key, value] : info.metadata) {
    if (key == "pkg.torch.export.graph_signature.InputSpec.persistent") saved = value != "False";
    if (key == "pkg.torch.export.graph_signature.InputSpec.kind")
      kind = value == "CONSTANT_TENSOR" ? WeightKind::Constant : WeightKind::Weight;
  }
  return saved ? kind : WeightKind::Constant;
}

void Importer::find_constants(const Graph& graph,
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

void Importer::read_graph(Reader m, Graph& graph, Scope& scope, const CallAttributes& call, int depth) {
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

void Importer::drop_undefined(std::vector<NamedType>& outputs, const Scope& scope) {
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
