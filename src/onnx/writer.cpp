#include "onnx/writer.h"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "onnx/message.h"
#include "support/atomic_file.h"
#include "support/interrupt.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn::onnx {
namespace {

using ir::Attribute;
using ir::Graph;
using ir::Node;
using ir::Type;
using ir::Value;
using wire::Message;

// Protobuf's readers take no message above 2 GiB; what is not weights needs some room.
constexpr std::uint64_t kMaxInline = (std::uint64_t{1} << 31) - (std::uint64_t{1} << 26);
constexpr std::uint64_t kMaxMessage = (std::uint64_t{1} << 31) - 1;
// Smaller tensors stay in the model: readers need shapes and axes at hand.
constexpr std::size_t kMinExternal = 1024;
constexpr std::uint64_t kAlignment = 4096;
// Before IR version 4 an initialiser had to be an input too.
constexpr std::int64_t kFreeInitializers = 4;
constexpr std::int64_t kOpsetImports = 3;

/// Names of values as they are written: their own, changed only where two would be the same.
/// An inner graph sees the names of those around it.
class Names {
 public:
  explicit Names(const Names* outer) : outer_(outer) {}

  void assign(const Value* v, std::string_view wanted) { names_[v] = fresh(wanted); }
  /// For the inputs and outputs of a nested graph whose names operators may know: they may hide a
  /// name further out, unless that is `captured` here.
  void assign_port(const Value* v, std::string_view wanted,
                   const std::unordered_set<std::string>& captured) {
    std::string name(wanted);
    if (name.empty() || captured.count(name) != 0 || !taken_.insert(name).second)
      name = fresh(wanted);
    names_[v] = std::move(name);
  }
  bool has(const Value* v) const { return names_.count(v) != 0; }
  const std::string* find(const Value* v) const {
    for (const Names* n = this; n != nullptr; n = n->outer_)
      if (const auto it = n->names_.find(v); it != n->names_.end()) return &it->second;
    return nullptr;
  }
  const std::string& of(const Value* v) const {
    if (const std::string* name = find(v)) return *name;
    throw InternalError("a node uses a value that no graph around it defines: " + v->name);
  }
  std::string fresh(std::string_view wanted) {
    std::string name(wanted.empty() ? "value" : wanted);
    if (!wanted.empty() && !taken(name)) return *taken_.insert(name).first;
    std::uint64_t& next = next_[name];
    std::string out;
    do {
      out = name + "_" + std::to_string(++next);
    } while (taken(out));
    taken_.insert(out);
    return out;
  }

 private:
  bool taken(const std::string& name) const {
    for (const Names* n = this; n != nullptr; n = n->outer_)
      if (n->taken_.count(name) != 0) return true;
    return false;
  }

  const Names* outer_;
  std::unordered_map<const Value*, std::string> names_;
  std::unordered_set<std::string> taken_;
  std::unordered_map<std::string, std::uint64_t> next_;
};

/// Tensors that go to the data file, in order.
struct DataFile {
  struct Entry {
    std::uint64_t offset;
    ByteSource source;
  };
  std::string name;
  std::vector<Entry> entries;
  std::uint64_t end = 1;  // the first page says whose weights they are

  std::uint64_t add(const ByteSource& source) {
    const std::uint64_t offset = (end + kAlignment - 1) / kAlignment * kAlignment;
    entries.push_back({offset, source});
    end = offset + source.size();
    return offset;
  }
  void write_to(AtomicFile& file, const std::string& model_name) const {
    file.append(std::string(kDataMark) + printable(model_name) + "\n");
    for (const Entry& e : entries) {
      file.append_zeros(e.offset - file.position());
      file.append(e.source);
    }
  }
};

class Writer {
 public:
  Writer(const ir::Model& model, DataFile* data) : model_(model), data_(data) {}

  Message run() {
    const ir::ModelInfo& info = model_.info;
    Message m;
    m.int64(1, info.ir_version);
    m.text_unless_empty(2, info.producer_name);
    m.text_unless_empty(3, info.producer_version);
    m.text_unless_empty(4, info.domain);
    if (info.model_version != 0) m.int64(5, info.model_version);
    m.text_unless_empty(6, info.doc_string);
    Names names(nullptr);
    m.message(7, graph(*model_.graph, names));
    // Where none is said, opset 1 is meant.
    const std::map<std::string, std::int64_t> imports = opsets();
    const bool is_first = imports.size() == 1 && imports.count("") != 0 && imports.at("") == 1;
    if (info.ir_version >= kOpsetImports || !is_first)
      for (const auto& [domain, version] : imports) {
        Message entry;
        entry.text(1, domain);
        entry.int64(2, version);
        m.message(8, std::move(entry));
      }
    entries(m, 14, info.metadata);
    return m;
  }

 private:
  /// The model's imports, and those that inlined functions brought along.
  std::map<std::string, std::int64_t> opsets() const {
    auto out = model_.info.opsets;
    ir::for_each_node(*model_.graph, [&](const Node& n) { out.emplace(n.domain, n.opset); });
    return out;
  }

  static void entries(Message& m, std::uint32_t field,
                      const std::vector<std::pair<std::string, std::string>>& list) {
    for (const auto& [key, value] : list) {
      Message entry;
      entry.text(1, key);
      entry.text(2, value);
      m.message(field, std::move(entry));
    }
  }

  // -------------------------------------------------------------- graphs

  /// Copies of values that a graph gives out, and cannot give out under their own name.
  struct Copy {
    const Value* value;
    std::string name;
  };

  /// Names all values, inputs and outputs before all others; returns what the outputs are called.
  std::vector<std::string> name_values(const Graph& g, Names& names,
                                       std::vector<Copy>& copies) const {
    std::vector<std::string> outputs;
    std::unordered_set<std::string> given_out;
    const std::unordered_set<std::string> captured = captured_names(g, names);
    for (const Value* v : g.inputs)
      if (is_written_input(g, v)) names.assign_port(v, v->name, captured);
    for (std::size_t i = 0; i < g.output_count(); ++i) {
      const Value* v = g.output(i);
      const std::string& wanted = g.output_names[i];
      const bool itself = g.parent() == nullptr && names.has(v) && names.of(v) == wanted &&
                          given_out.count(wanted) == 0;
      if (v->graph() == &g && !names.has(v)) {
        // What a branch or a body gives out must not hide a name further out.
        if (g.parent() != nullptr && g.parent()->domain.empty()) {
          names.assign(v, wanted);
        } else {
          names.assign_port(v, wanted, captured);
        }
        outputs.push_back(names.of(v));
      } else if (itself) {
        outputs.push_back(wanted);
      } else {
        copies.push_back({v, names.fresh(wanted)});
        outputs.push_back(copies.back().name);
      }
      given_out.insert(outputs.back());
    }
    for (const Value* v : g.initializers)
      if (v->has_uses() && !names.has(v)) names.assign(v, v->name);
    for (const Node* n = g.first(); n != nullptr; n = n->next())
      for (const Value* v : n->outputs())
        if (v != nullptr && !names.has(v)) names.assign(v, v->name);
    return outputs;
  }

  /// The names, further out, of what `g` and the graphs in it use.
  static std::unordered_set<std::string> captured_names(const Graph& g, const Names& names) {
    std::unordered_set<std::string> out;
    if (g.parent() == nullptr) return out;
    const auto add = [&](const Value* v) {
      if (v != nullptr)
        if (const std::string* name = names.find(v)) out.insert(*name);
    };
    for (std::size_t i = 0; i < g.output_count(); ++i) add(g.output(i));
    ir::for_each_node(g, [&](const Node& n) {
      for (std::size_t i = 0; i < n.input_count(); ++i) add(n.input(i));
      for (const Graph* inner : n.subgraphs())
        for (std::size_t i = 0; i < inner->output_count(); ++i) add(inner->output(i));
    });
    return out;
  }

  /// A weight that old files list among the inputs goes with its last use.
  bool is_written_input(const Graph& g, const Value* v) const {
    return g.parent() != nullptr || !v->constant || v->has_uses() ||
           !model_.info.weights_are_inputs;
  }

  /// Constant nodes held floats only before opset 9; a nested graph has nowhere else to put others.
  bool is_written_as_node(const Graph& g, const Value* v) const {
    constexpr std::int64_t kConstantsOfAnyType = 9;
    if (v->is_graph_input) return false;
    const auto opset = model_.info.opsets.find("");
    return g.parent() != nullptr || opset == model_.info.opsets.end() ||
           opset->second >= kConstantsOfAnyType || ir::is_float(v->constant->dtype());
  }

  /// Whether the type of an output of `n` is worth its bytes.
  static bool says_something(const Node& n, const Type& type) {
    if (type.is_tensor() && type.dtype == ir::DType::Undefined) return false;
    if (n.op == nullptr) return type.kind != Type::Kind::Unknown;
    return n.graph()->parent() == nullptr && type.is_tensor() && type.shape.has_rank();
  }

  Message graph(const Graph& g, Names& names) {
    std::vector<Copy> copies;
    const std::vector<std::string> outputs = name_values(g, names, copies);
    const bool constants_are_nodes = model_.info.ir_version < kFreeInitializers;
    const auto for_each_constant = [&](bool as_node, auto&& visit) {
      for (const Value* v : g.initializers) {
        if (!v->constant || !(v->is_graph_input ? is_written_input(g, v) : v->has_uses())) continue;
        if (as_node == (constants_are_nodes && is_written_as_node(g, v))) visit(v);
      }
    };
    Message m;
    for_each_constant(
        true, [&](const Value* v) { m.message(1, constant_node(names.of(v), *v->constant)); });
    Names node_names(nullptr);
    for (const Node* n = g.first(); n != nullptr; n = n->next())
      m.message(1, node(*n, n->name.empty() ? std::string() : node_names.fresh(n->name), names));
    for (const Copy& c : copies) {
      Message n;
      n.text(1, names.of(c.value));
      n.text(2, c.name);
      n.text(4, "Identity");
      m.message(1, std::move(n));
    }
    m.text(2, g.name);
    for_each_constant(
        false, [&](const Value* v) { m.message(5, tensor(names.of(v), *v->constant, true)); });
    m.text_unless_empty(10, g.doc_string);
    for (std::size_t i = 0; i < g.inputs.size(); ++i)
      if (const Value* v = g.inputs[i]; is_written_input(g, v))
        m.message(11, port(names.of(v), v->type, g.input_infos, i));
    if (constants_are_nodes)
      for_each_constant(false, [&](const Value* v) {
        if (v->is_graph_input) return;
        m.message(11, value_info(names.of(v), Type::tensor(v->constant->dtype(), ir::Shape::of(v->constant->dims()))));
      });
    for (std::size_t i = 0; i < outputs.size(); ++i)
      m.message(12, port(outputs[i], g.output_types[i], g.output_infos, i, g.output(i)));
    // What readers cannot infer, for lack of an operator's definition or of our reasoning about
    // symbols: runtimes fuse less where they do not know that two shapes are the same.
    const std::unordered_set<std::string_view> declared(outputs.begin(), outputs.end());
    for (const Node* n = g.first(); n != nullptr; n = n->next())
      for (const Value* v : n->outputs())
        if (v != nullptr && says_something(*n, v->type) && declared.count(names.of(v)) == 0)
          m.message(13, value_info(names.of(v), with_declared(*v)));
    return m;
  }

  static Message constant_node(const std::string& name, const ir::Tensor& t) {
    Message attribute;
    attribute.text(1, "value");
    attribute.message(5, plain_tensor("", t));
    attribute.int64(20, 4);
    Message m;
    m.text(2, name);
    m.text(4, "Constant");
    m.message(5, std::move(attribute));
    return m;
  }

  Message node(const Node& n, const std::string& name, const Names& names) {
    check_interrupt();
    Message m;
    for (std::size_t i = 0; i < n.input_count(); ++i)
      m.text(1, n.input(i) != nullptr ? names.of(n.input(i)) : std::string());
    for (const Value* v : n.outputs()) m.text(2, v != nullptr ? names.of(v) : std::string());
    m.text_unless_empty(3, name);
    m.text(4, n.op_type);
    for (const Attribute& a : n.attributes) m.message(5, attribute(a, names));
    m.text_unless_empty(6, n.doc_string);
    m.text_unless_empty(7, n.domain);
    m.text_unless_empty(8, n.overload);
    entries(m, 9, n.metadata);
    return m;
  }

  Message attribute(const Attribute& a, const Names& names) {
    Message m;
    m.text(1, a.name);
    const auto inner_graph = [&](const Graph& g) {
      Names inner(&names);
      return graph(g, inner);
    };
    std::int64_t type = 0;
    if (const auto* f = std::get_if<double>(&a.data)) {
      m.f32(2, static_cast<float>(*f));
      type = 1;
    } else if (const auto* i = std::get_if<std::int64_t>(&a.data)) {
      m.int64(3, *i);
      type = 2;
    } else if (const auto* s = std::get_if<std::string>(&a.data)) {
      m.text(4, *s);
      type = 3;
    } else if (const auto* t = std::get_if<ir::TensorPtr>(&a.data)) {
      m.message(5, plain_tensor("", **t));
      type = 4;
    } else if (const auto* g = std::get_if<std::unique_ptr<Graph>>(&a.data)) {
      m.message(6, inner_graph(**g));
      type = 5;
    } else if (const auto* floats = std::get_if<std::vector<double>>(&a.data)) {
      for (const double v : *floats) m.f32(7, static_cast<float>(v));
      type = 6;
    } else if (const auto* ints = std::get_if<std::vector<std::int64_t>>(&a.data)) {
      for (const std::int64_t v : *ints) m.int64(8, v);
      type = 7;
    } else if (const auto* strings = std::get_if<std::vector<std::string>>(&a.data)) {
      for (const std::string& v : *strings) m.text(9, v);
      type = 8;
    } else if (const auto* tensors = std::get_if<std::vector<ir::TensorPtr>>(&a.data)) {
      for (const ir::TensorPtr& v : *tensors) m.message(10, plain_tensor("", *v));
      type = 9;
    } else if (const auto* graphs = std::get_if<Attribute::Graphs>(&a.data)) {
      for (const auto& v : *graphs) m.message(11, inner_graph(*v));
      type = 10;
    } else {
      m.message(14, type_proto(std::get<Type>(a.data)));
      type = 13;
    }
    m.int64(20, type);
    return m;
  }

  // -------------------------------------------------------------- types and tensors

  Message value_info(const std::string& name, const Type& type) const {
    Message m;
    m.text(1, name);
    if (type.kind != Type::Kind::Unknown) m.message(2, type_proto(type));
    return m;
  }

  /// The type of `v`, the dimensions that only the file has a name for by that name.
  Type with_declared(const Value& v) const {
    Type type = v.type;
    if (!v.declared || !v.declared->has_rank() || v.declared->rank() != type.shape.rank())
      return type;
    for (std::size_t i = 0; i < type.shape.rank(); ++i) {
      ir::Dim& d = type.shape.dims()[i];
      const auto symbol = d.symbol_name();
      const bool has_name = symbol && model_.info.symbols.count(*symbol) != 0;
      if (!d.is_const() && !has_name) d = (*v.declared)[i];
    }
    return type;
  }

  /// `type` without the symbols that inference gave to open dims.
  Type as_read(Type type) const {
    for (ir::Dim& d : type.shape.dims())
      if (const auto symbol = d.symbol_name(); symbol && model_.info.symbols.count(*symbol) == 0)
        d = ir::Dim::unknown();
    return type;
  }

  /// Whether what a file declares of an output contradicts what is known of the value `v`, now that
  /// no branch or arithmetic hides it from checkers. To them -1 and 0 are numbers as well.
  static bool contradicts(const Type& declared, bool open_as_number, const Value& v) {
    const ir::Shape& says = declared.shape;
    const ir::Shape& is = v.type.shape;
    // Checkers know nothing of other domains.
    if (v.producer() == nullptr || !v.producer()->domain.empty()) return false;
    if (!declared.is_tensor() || !v.type.is_tensor() || !says.has_rank() || !is.has_rank())
      return false;
    if (says.rank() != is.rank()) return true;
    for (std::size_t i = 0; i < is.rank(); ++i)
      if (is[i].is_const() && (says[i].is_const() ? says[i].value() != is[i].value()
                                                  : open_as_number))
        return true;
    return false;
  }

  /// An input or output, with what the file said of it.
  Message port(const std::string& name, Type type, const std::vector<ir::ValueInfo>& infos,
               std::size_t i, const Value* given_out = nullptr) const {
    const bool has_info = i < infos.size();
    const bool is_wrong = given_out != nullptr &&
                          contradicts(type, has_info && infos[i].open_as_number, *given_out);
    if (is_wrong) type = given_out->type;
    if (!has_info) return value_info(name, type);
    const ir::ValueInfo& info = infos[i];
    Message m;
    m.text(1, name);
    if (!info.type_proto.empty() && !is_wrong && as_read(type).str() == info.type) {
      m.text(2, info.type_proto);
    } else if (type.kind != Type::Kind::Unknown) {
      m.message(2, type_proto(type));
    }
    m.text_unless_empty(3, info.doc_string);
    entries(m, 4, info.metadata);
    return m;
  }

  Message type_proto(const Type& type) const {
    Message inner;
    std::uint32_t field = 0;
    switch (type.kind) {
      case Type::Kind::Unknown:
        return {};
      case Type::Kind::Tensor:
      case Type::Kind::SparseTensor:
        field = type.kind == Type::Kind::Tensor ? 1 : 8;
        inner.int64(1, static_cast<std::int64_t>(type.dtype));
        if (type.shape.has_rank()) inner.message(2, shape(type.shape));
        break;
      case Type::Kind::Sequence:
      case Type::Kind::Optional:
        field = type.kind == Type::Kind::Sequence ? 4 : 9;
        inner.message(1, type_proto(*type.element));
        break;
      case Type::Kind::Map:
        field = 5;
        inner.int64(1, static_cast<std::int64_t>(type.dtype));
        inner.message(2, type_proto(*type.element));
        break;
    }
    Message m;
    m.message(field, std::move(inner));
    return m;
  }

  Message shape(const ir::Shape& s) const {
    Message m;
    for (const ir::Dim& d : s.dims()) {
      Message dim;
      if (d.is_const()) {
        dim.int64(1, d.value());
      } else if (const auto symbol = d.symbol_name()) {
        // A symbol that inference made up says nothing.
        const auto it = model_.info.symbols.find(*symbol);
        if (it != model_.info.symbols.end()) dim.text(2, it->second);
      }
      m.message(1, std::move(dim));
    }
    return m;
  }

  static Message plain_tensor(const std::string& name, const ir::Tensor& t) {
    Message m;
    for (const std::int64_t d : t.dims()) m.int64(1, d);
    m.int64(2, static_cast<std::int64_t>(t.dtype()));
    for (const std::string& s : t.strings()) m.text(6, s);
    m.text_unless_empty(8, name);
    if (t.dtype() != ir::DType::String) m.bytes(9, t.source());
    return m;
  }

  Message tensor(const std::string& name, const ir::Tensor& t, bool may_be_external) {
    if (data_ == nullptr || !may_be_external || t.byte_size() < kMinExternal)
      return plain_tensor(name, t);
    Message m;
    for (const std::int64_t d : t.dims()) m.int64(1, d);
    m.int64(2, static_cast<std::int64_t>(t.dtype()));
    m.text(8, name);
    entries(m, 13,
            {{"location", data_->name},
             {"offset", std::to_string(data_->add(t.source()))},
             {"length", std::to_string(t.byte_size())}});
    m.int64(14, 1);
    return m;
  }

  const ir::Model& model_;
  DataFile* data_;
};

std::uint64_t weight_bytes(const Graph& g) {
  std::uint64_t sum = 0;
  for (const Value* v : g.initializers)
    if (v->constant && v->has_uses()) sum += v->constant->byte_size();
  return sum;
}

Message checked(Message m) {
  if (m.size() > kMaxMessage)
    fail("too-large", "the model without its weights takes {} bytes, more than protobuf's 2 GiB",
         m.size());
  return m;
}

/// Half of what was written may have come from before a change.
void check_unchanged(const ir::Model& model) {
  for (const Value* v : model.graph->initializers)
    if (v->constant && v->constant->source().on_disk())
      v->constant->source().file()->check_unchanged();
}

}  // namespace

ModelFile::ModelFile(const ir::Model& model, std::string path, const WriteOptions& options)
    : model_(model), path_(std::move(path)) {
  if (!options.external_data && weight_bytes(*model.graph) <= kMaxInline) return;
  DataFile data;
  (void)Writer(model, &data).run();
  if (data.entries.empty()) return;
  data_path_ = options.data_path.empty() ? path_ + ".data" : options.data_path;
}

std::string ModelFile::text(std::string_view tag) const {
  DataFile data;
  data.name = file_name_of(tagged(*data_path_, tag));
  return checked(Writer(model_, &data).run()).str();
}

void ModelFile::add_to(AtomicFileSet& files) const {
  if (!data_path_) {
    checked(Writer(model_, nullptr).run()).write_to(files.add(path_));
    check_unchanged(model_);
    return;
  }
  DataFile data;
  (void)checked(Writer(model_, &data).run());
  const std::string name = file_name_of(path_);
  data.write_to(files.add(*data_path_), name);
  files.add_head(path_, [this](std::string_view tag) { return text(tag); });
  check_unchanged(model_);
}

std::string serialize_model(const ir::Model& model) {
  return checked(Writer(model, nullptr).run()).str();
}

}  // namespace onnx2nn::onnx
