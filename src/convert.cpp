// The way a model takes, from file to source, on one screen.
#include "onnx2nn/convert.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <unordered_set>
#include <utility>

#include "diagnostics.h"
#include "emit/python.h"
#include "emit/runtime_source.h"
#include "emit/torchscript.h"
#include "emit/weights.h"
#include "free_dims.h"
#include "input_shapes.h"
#include "module_name.h"
#include "onnx/external_data.h"
#include "onnx/reader.h"
#include "ops/context.h"
#include "ops/folded_norms.h"
#include "ops/authors_names.h"
#include "ops/lower.h"
#include "ops/operands.h"
#include "outputs.h"
#include "passes/branches.h"
#include "passes/layouts.h"
#include "passes/passes.h"
#include "structure/decoder.h"
#include "structure/instances.h"
#include "structure/structure.h"
#include "support/atomic_file.h"
#include "support/identifier.h"
#include "support/interrupt.h"
#include "support/path.h"
#include "support/text.h"
#include "torch/python_names.h"
#include "weight_entries.h"

namespace onnx2nn {

struct Conversion::Impl {
  std::string file_name;
  std::string shown_name;  // by which diagnostics call the model
  std::unique_ptr<ir::Model> model;
  torch::Program program;
  std::unordered_set<const torch::Param*> shared;  // see structure::Page
  torch::Program with_tables;                      // the same
  Diagnostics diagnostics;    // of the conversion, and of the last attempt to write it
  Diagnostics of_conversion;  // alone
  std::vector<DiagnosticInfo> diagnostic_infos;
  std::string source;
  std::vector<PortInfo> inputs, outputs;
  std::vector<WeightInfo> weights;
  std::vector<ModuleInfo> modules;
  ConversionStats stats;
  ConvertOptions options;
  bool readable = false;
  std::string path;  // empty where the model was given as bytes
  std::string stem;
  std::vector<std::string> data_files;
};

namespace {

using Impl = Conversion::Impl;

// Names that the emitted file uses otherwise.
bool is_taken(std::string_view name) {
  return torch::is_source_name(name) || torch::is_python_keyword(name) ||
         emit::is_runtime_name(name);
}

/// "my_net-v2" gives MyNetV2; letters of other scripts stay.
std::string class_name_of(const std::string& stem) {
  constexpr std::size_t kLongest = 60;
  std::string out;
  for (std::string_view word : identifier_words(stem, '_')) {
    std::string part(word);
    part[0] = to_upper(part[0]);
    if (out.size() + part.size() > kLongest && !out.empty()) break;
    out += part;
  }
  if (!is_identifier(out)) out = "Model" + out;
  if (is_taken(out)) out += "Model";
  return out;
}

/// The class's name as the caller wants it; a capital at its head keeps it apart from Python's
/// keywords and functions.
std::string checked_class_name(const std::string& name) {
  const bool starts_small = name.empty() || name[0] == '_' || (name[0] >= 'a' && name[0] <= 'z');
  if (starts_small || !is_identifier(name) || is_taken(name))
    throw Error("bad-option", "\"" + name + "\" cannot be the name of the class",
                "use letters, digits and _, a capital first");
  return name;
}

/// The functions of the operators that the model has stand side by side in one file: each needs a
/// name of its own.
void check_function_names(const Impl& c, const std::string& class_name) {
  std::map<std::string_view, std::string_view> sources;
  for (const CustomOp& op : c.options.custom_ops) {
    const std::string type = op.domain.empty() ? op.op_type : op.domain + "::" + op.op_type;
    if (c.stats.op_types.count(type) == 0) continue;
    const auto [it, is_new] = sources.emplace(op.name, op.source);
    const bool other = !is_new && it->second != op.source;
    if (other || op.name == class_name || is_taken(op.name))
      throw Error("bad-option",
                  "the function for " + type + " is called \"" + op.name +
                      "\", as something else in the source is",
                  "give it a name of its own and register it again");
  }
}

/// What the file defines beside its classes.
std::set<std::string> names_of_functions(const Impl& c, std::set<std::string> helpers) {
  std::set<std::string> out = helpers;
  for (const CustomOp& op : c.options.custom_ops) helpers.erase(op.name);
  for (std::string& name : emit::runtime_source(helpers).functions) out.insert(std::move(name));
  return out;
}

/// Model text as a part of a docstring.
std::string quoted_text(std::string_view text) {
  std::string out;
  for (const char ch : printable(text)) out += ch == '"' || ch == '\\' ? '\'' : ch;
  return out;
}

/// A line about batch norms that the exporter folded; empty where it folded none.
std::string folded_norms(const Impl& c) {
  constexpr std::size_t kWidth = 88;
  const std::vector<std::string> all = ops::folded_batch_norms(*c.model, c.program);
  if (all.empty()) return "";
  std::string line = "batch norms folded by the exporter: ";
  for (const std::string& name : all) {
    if (line.size() + name.size() + std::string_view(", ...").size() > kWidth) {
      line += "...";
      return line + "\n";
    }
    line += name + (&name == &all.back() ? "\n" : ", ");
  }
  return line;
}

/// The first line is what tells our files from others: see outputs.cpp.
std::string header(const Impl& c) {
  constexpr std::size_t kLine = 85;  // behind three quotes
  const auto& info = c.model->info;
  const std::string file = quoted_text(c.file_name);
  const std::string whole = c.program.class_name + ", converted from " + file + " by onnx2nn.";
  std::string origin = "opset " + std::to_string(c.model->opset(""));
  if (!info.producer_name.empty())
    origin += ", produced by " +
              std::string(strip(quoted_text(info.producer_name + " " + info.producer_version)));
  const std::string folded = folded_norms(c);
  if (whole.size() <= kLine) return whole + "\n\n" + origin + "\n" + folded;
  const bool fits = file.size() + 2 + origin.size() <= kLine;
  return c.program.class_name + ", converted by onnx2nn.\n\n" + file + (fits ? ", " : "\n") + origin +
         "\n" + folded;
}

std::string emit_weights_name(const Impl& c) {
  return c.options.weights_name.empty() ? c.stem + ".safetensors" : c.options.weights_name;
}

bool is_pth(const std::string& path) {
  return to_lower(path).ends_with(".pth");
}

std::uint64_t shard_limit(const Impl& c) {
  return c.options.max_shard_size.value_or(emit::kShardLimit);
}

/// Options that only source and its weights can follow.
void check_source_options(const Impl& c) {
  if (c.options.tp_plan)
    check_suffix(emit_weights_name(c), "weights beside tp_plan()", {".safetensors", ".pth"});
  if (!c.options.max_shard_size) return;
  check_suffix(emit_weights_name(c), "weights in shards", {".safetensors"});
  if (*c.options.max_shard_size == 0)
    throw Error("bad-option", "shards of 0 bytes hold no weights", "give a size such as 500MB");
}

std::vector<emit::WeightEntry> weight_entries(const Impl& c) {
  std::vector<emit::WeightEntry> entries;
  for (const auto& p : c.program.params) entries.push_back(entry_of(*p));
  return entries;
}

/// What load() reads for weights in a file of this name: that, or the index of several.
std::string loaded_name(const Impl& c, const std::string& name) {
  if (is_pth(name) || emit::shards_of(weight_entries(c), shard_limit(c)).size() == 1) return name;
  return emit::index_path(name);
}

/// The source, with weights in a file of this name and tag: see AtomicFileSet::Head.
std::string source_for(const Impl& c, const std::string& name, std::string_view tag) {
  const std::string literal = python_quote(loaded_name(c, emit_weights_name(c)));
  std::string out = c.source;
  if (const std::size_t at = out.rfind(literal); at != std::string::npos)
    out.replace(at, literal.size(), python_quote(tag.empty() ? name : tagged(name, tag)));
  return out;
}

/// An input's type as TorchScript has it.
std::string script_type(const torch::Port& p) {
  if (p.dtype == "string" || p.kind == "map")
    throw Error("unsupported-output", "TorchScript has no input such as " + printable(p.onnx_name) +
                                          (p.kind == "map" ? ", a map" : ", of strings"),
                "write the model as .py, which carries all operators");
  const std::string plain = p.type_text.find("seq(") != std::string::npos ? "List[Tensor]" : "Tensor";
  return p.kind == "optional" ? "Optional[" + plain + "]" : plain;
}

/// Half of its weights may have come from before a change.
void check_unchanged(std::span<const emit::WeightEntry> entries) {
  for (const emit::WeightEntry& e : entries) {
    if (e.source.on_disk()) e.source.file()->check_unchanged();
    for (const emit::WeightPart& part : e.parts)
      if (part.source.on_disk()) part.source.file()->check_unchanged();
  }
}

/// What an earlier conversion may have left whose weights were one file, or other shards: loaders
/// would take it for a part of these.
std::vector<std::string> other_safetensors(const std::string& weights) {
  std::vector<std::string> out = {weights, emit::index_path(weights)};
  std::error_code error;
  for (std::filesystem::directory_iterator at(to_path(folder_of(weights)), error), end; !error && at != end;
       at.increment(error)) {
    const std::filesystem::path name = at->path().filename();
    if (emit::is_shard_name(path_text(name), file_name_of(weights)))
      out.push_back(path_text(to_path(weights).parent_path() / name));
  }
  return out;
}

std::vector<std::string> write_source(Impl& c, const std::string& python_path,
                                      const std::string& weights_path) {
  std::string weights = weights_path;
  if (weights.empty()) weights = path_text(to_path(python_path).parent_path() / to_path(emit_weights_name(c)));
  const std::vector<emit::WeightEntry> entries = weight_entries(c);
  const bool has_weights = is_pth(weights) || !entries.empty();
  check_suffix(python_path, "Python source", {".py"});
  check_suffix(weights, "weights", {".safetensors", ".pth"});
  if (is_pth(weights) != is_pth(emit_weights_name(c)))
    throw Error("bad-option", printable(weights) + ": the source was made to load weights of another kind",
                "name the file when the model is converted, in the option weights_name");
  const Outputs outputs(c.path, c.data_files, c.options.force);
  outputs.check(python_path);
  if (has_weights) outputs.check(weights);
  AtomicFileSet files = outputs.files();
  if (is_pth(weights)) {
    emit::add_state_dict_pth(files, weights, entries, c.file_name);
  } else if (has_weights) {
    emit::add_safetensors(files, weights, entries,
                          {{"format", "pt"}, {std::string(kMark), c.file_name}}, shard_limit(c));
    for (const std::string& path : other_safetensors(weights))
      if (!outputs.is_input(path)) files.add_stale(path);
  }
  const std::string name = loaded_name(c, file_name_of(weights));
  files.add_head(python_path, [&](std::string_view tag) { return source_for(c, name, tag); });
  check_unchanged(entries);
  files.commit();
  if (const std::string why = why_not_imported(stem_of(python_path)); !why.empty())
    c.diagnostics.add(Severity::Warning, "bad-name",
                      printable(python_path) + " cannot be imported as it should: " + why,
                      "give the output another name");
  return files.paths();
}

std::vector<std::string> write_torchscript(Impl& c, const std::string& path) {
  const torch::InstancePtr root = structure::instances(c.with_tables, c.shared);
  emit::ScriptModel model;
  model.root = root.get();
  model.class_name = c.with_tables.class_name;
  for (const torch::Port& p : c.with_tables.inputs) model.inputs.push_back(script_type(p));
  model.origin = c.file_name;
  model.budget = &c.model->budget();
  std::vector<emit::WeightEntry> entries;
  for (const auto& p : c.with_tables.params) {
    if (p->quantized) continue;
    model.entry_of[p.get()] = entries.size();
    entries.push_back(real_entry_of(c.with_tables, *p));
  }
  const Outputs outputs(c.path, c.data_files, c.options.force);
  outputs.check(path);
  AtomicFileSet files = outputs.files();
  emit::add_torchscript(files, path, model, entries);
  check_unchanged(entries);
  files.commit();
  return files.paths();
}

PortInfo port_info(const torch::Port& p) {
  return {p.onnx_name, p.var ? p.var->hint : "", p.kind, p.dtype, p.shape};
}

WeightPiece place_of(const ByteSource& source) {
  WeightPiece out;
  if (source.on_disk()) {
    out.file = source.file()->path();
    out.file_offset = source.file_offset();
  }
  out.nbytes = source.size();
  return out;
}

void describe_weights(Impl& c) {
  for (const auto& p : c.program.params) {
    WeightInfo w;
    w.key = p->key();
    w.dtype = ir::info(p->stored_dtype()).torch_name;
    if (p->quantized) w.quantized = p->quantized->key();
    w.shape = stored_shape(*p);
    w.trainable = p->trainable;
    w.is_buffer = !p->trainable;
    w.persistent = p->persistent;
    w.exact = p->exact;
    if (p->tensor) {
      const WeightPiece whole = place_of(p->tensor->source());
      w.file = whole.file;
      w.offset = whole.file_offset;
      w.nbytes = whole.nbytes;
      w.transpose = p->transpose;
    }
    for (const torch::Piece& piece : p->pieces) {
      WeightPiece part = place_of(piece.tensor->source());
      part.offset = piece.offset;
      part.rows = piece.rows;
      part.columns = piece.columns;
      part.stride = piece.stride;
      part.transpose = piece.transpose;
      w.nbytes += static_cast<std::uint64_t>(piece.rows * piece.columns) *
                  static_cast<std::uint64_t>(ir::info(p->stored_dtype()).bits / 8);
      w.pieces.push_back(std::move(part));
    }
    w.onnx_name = p->onnx_name;
    c.stats.weight_bytes += w.nbytes;
    c.weights.push_back(std::move(w));
  }
}

void run(Impl& c, std::shared_ptr<const InputFile> file, const std::string& folder,
         const std::string& stem) {
  c.stem = stem;
  check_source_options(c);
  if (file->on_disk()) c.path = file->path();
  c.model = onnx::read_model(
      std::move(file), {folder, c.options.data_roots, c.options.drop_undefined_outputs},
      c.diagnostics);
  c.data_files = data_files(*c.model, c.path);
  ir::Graph& graph = *c.model->graph;
  c.readable = true;
  c.stats.ir_version = c.model->info.ir_version;
  c.stats.producer = c.model->info.producer_name;
  c.stats.opsets = c.model->info.opsets;
  ir::for_each_node(graph, [&](ir::Node& n) {
    n.op = ops::find_op(n.domain, n.op_type);
    ++c.stats.op_types[n.domain.empty() ? n.op_type : n.domain + "::" + n.op_type];
    ++c.stats.nodes_before;
  });
  ops::check_operands(graph, c.diagnostics);
  if (c.diagnostics.has_errors()) return;
  apply_input_shapes(*c.model, c.options.input_shapes);
  free_dims(*c.model, c.options.free_dims, c.diagnostics);
  if (c.diagnostics.has_errors()) return;
  ops::restore_authors_names(*c.model);
  std::set<std::pair<std::string, std::string>> custom;
  for (const CustomOp& op : c.options.custom_ops) custom.emplace(op.domain, op.op_type);
  passes::plain_layouts(*c.model, custom, c.diagnostics);
  if (c.diagnostics.has_errors()) return;
  if (c.options.simplify) {
    passes::join_branches(*c.model);
    passes::Options options = passes::for_conversion(c.options.fuse);
    options.kept = custom;
    passes::simplify(*c.model, options, c.diagnostics, c.stats.rules);
  } else {
    ops::infer_graph(graph, c.diagnostics);
  }
  ir::for_each_node(graph, [&](ir::Node&) { ++c.stats.nodes_after; });
  ops::LowerOptions lower;
  lower.class_name =
      c.options.class_name.empty() ? class_name_of(stem) : checked_class_name(c.options.class_name);
  for (const CustomOp& op : c.options.custom_ops) lower.custom[{op.domain, op.op_type}] = op.name;
  check_function_names(c, lower.class_name);
  lower.allow_unknown = c.options.allow_unknown;
  c.program = ops::Lowering(*c.model, lower, c.diagnostics).run();
  if (c.diagnostics.has_errors()) return;
  emit::PythonOptions python;
  for (const CustomOp& op : c.options.custom_ops) python.functions.emplace_back(op.name, op.source);
  python.comments_origin = c.options.comments_origin;
  python.header = header(c);
  python.budget = &c.model->budget();
  python.helpers = structure::helpers_of(c.program);
  structure::Options pages;
  pages.flat = c.options.flat;
  pages.trace = c.options.trace;
  pages.tp_plan = c.options.tp_plan;
  pages.functions = names_of_functions(c, python.helpers);
  structure::Page page = structure::structured(std::move(c.program), pages);
  c.program = std::move(page.program);
  c.shared = std::move(page.shared);
  c.with_tables = std::move(page.with_tables);
  for (structure::PageModule& m : page.modules)
    c.modules.push_back({std::move(m.path), std::move(m.type), m.is_layer});
  python.weights_name = loaded_name(c, emit_weights_name(c));
  if (!c.options.comments_origin) python.comments = std::move(page.shapes);
  if (c.options.tp_plan)
    python.tp_plan = emit::TpPlan{page.tp_plan.styles, page.tp_plan.whole, page.tp_plan.parts};
  if (!pages.trace) python.decoder = structure::decoder_of(c.program, python.helpers);
  c.source = emit::print_python(c.program, python);
  for (const auto& p : c.program.inputs) c.inputs.push_back(port_info(p));
  for (const auto& p : c.program.outputs) c.outputs.push_back(port_info(p));
  describe_weights(c);
}

void guarded(Impl& c, const std::function<void()>& work) {
  collect_errors(c.diagnostics, work);
  c.diagnostic_infos = infos_of(c.diagnostics);
}

Conversion converted(const std::shared_ptr<Impl>& c, const std::function<void()>& work) {
  guarded(*c, work);
  c->of_conversion = c->diagnostics;
  return Conversion(c);
}

}  // namespace

Conversion::Conversion(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
bool Conversion::ok() const {
  return !impl_->diagnostics.has_errors();
}
bool Conversion::readable() const {
  return impl_->readable;
}
const std::string& Conversion::source() const {
  return impl_->source;
}
const std::string& Conversion::class_name() const {
  return impl_->program.class_name;
}
const std::vector<DiagnosticInfo>& Conversion::diagnostics() const {
  return impl_->diagnostic_infos;
}
std::string Conversion::diagnostics_text() const {
  return impl_->diagnostics.text(impl_->shown_name);
}
std::string Conversion::diagnostics_json() const {
  return impl_->diagnostics.json();
}
const std::vector<PortInfo>& Conversion::inputs() const {
  return impl_->inputs;
}
const std::vector<PortInfo>& Conversion::outputs() const {
  return impl_->outputs;
}
const std::vector<WeightInfo>& Conversion::weights() const {
  return impl_->weights;
}
const ConversionStats& Conversion::stats() const {
  return impl_->stats;
}

const std::vector<ModuleInfo>& Conversion::modules() const {
  return impl_->modules;
}

std::string_view Conversion::weight_bytes(std::size_t i, std::size_t piece) const {
  const torch::Param& p = *impl_->program.params.at(i);
  const auto b = (p.pieces.empty() ? p.tensor : p.pieces.at(piece).tensor)->bytes();
  return {reinterpret_cast<const char*>(b.data()), b.size()};
}

std::vector<std::string> Conversion::write(const std::string& python_path,
                                           const std::string& weights_path) {
  std::vector<std::string> written;
  if (impl_->of_conversion.has_errors()) return written;
  impl_->diagnostics = impl_->of_conversion;
  guarded(*impl_, [&] {
    const std::string suffix = to_lower(suffix_of(python_path));
    if (suffix == ".pt2" || suffix == ".pte")
      throw Error("bad-option",
                  printable(python_path) + ": " + suffix +
                      " files are written by torch, which this program does without",
                  "use the Python program, with torch installed: pip install 'onnx2nn[torch]'");
    written = suffix == ".pt"
                  ? write_torchscript(*impl_, python_path)
                  : write_source(*impl_, python_path, weights_path);
  });
  return written;
}

std::map<std::string, std::string> external_files(const std::string& model,
                                                  const std::vector<std::string>& locations,
                                                  const std::vector<std::string>& data_roots) {
  std::map<std::string, std::string> out;
  const std::string named_in = model.empty() ? "" : folder_of(model);
  for (const std::string& location : locations) {
    try {
      onnx::ExternalData data(model, named_in, data_roots);
      out[location] = data.open(location)->path();
    } catch (const std::exception&) {  // the conversion says why
    }
  }
  return out;
}

Conversion convert_file(const std::string& path, const ConvertOptions& options) {
  auto c = std::make_shared<Impl>();
  c->file_name = file_name_of(path);
  c->shown_name = path;
  c->options = options;
  return converted(c, [&] { run(*c, InputFile::open(path), folder_of(path), stem_of(path)); });
}

Conversion convert_bytes(std::string bytes, const ConvertOptions& options,
                         const std::string& name) {
  auto c = std::make_shared<Impl>();
  c->file_name = name;
  c->shown_name = name;
  c->options = options;
  return converted(c, [&] { run(*c, InputFile::from_memory(std::move(bytes)), "", name); });
}

}  // namespace onnx2nn
