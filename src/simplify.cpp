// The way a model takes from file to smaller file.
#include "onnx2nn/simplify.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <utility>

#include "diagnostics.h"
#include "free_dims.h"
#include "input_shapes.h"
#include "onnx/message.h"
#include "onnx/reader.h"
#include "onnx/writer.h"
#include "onnx2nn/version.h"
#include "ops/context.h"
#include "ops/op.h"
#include "ops/operands.h"
#include "outputs.h"
#include "passes/passes.h"
#include "passes/upgrade.h"
#include "support/atomic_file.h"
#include "support/interrupt.h"
#include "support/path.h"
#include "support/suggest.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

void count(const ir::Model& model, std::size_t& nodes, std::map<std::string, std::size_t>& op_types,
           std::uint64_t& weight_bytes) {
  ir::for_each_node(*model.graph, [&](const ir::Node& n) {
    ++nodes;
    ++op_types[n.domain.empty() ? n.op_type : n.domain + "::" + n.op_type];
  });
  for (const ir::Value* v : model.graph->initializers)
    if (v->constant && v->has_uses()) weight_bytes += v->constant->byte_size();
}

/// An input with a default may be given another value: nothing may be computed from it.
/// Hides the defaults while it lives.
class Defaults {
 public:
  explicit Defaults(ir::Model& model) {
    if (model.info.weights_are_inputs) return;
    for (ir::Value* v : model.graph->inputs)
      if (v->constant) hidden_.emplace_back(v, std::exchange(v->constant, nullptr));
  }
  Defaults(const Defaults&) = delete;
  Defaults& operator=(const Defaults&) = delete;
  ~Defaults() {
    for (auto& [v, tensor] : hidden_) v->constant = std::move(tensor);
  }

 private:
  std::vector<std::pair<ir::Value*, ir::TensorPtr>> hidden_;
};

bool same_meaning(const ir::Node& n, std::int64_t opset) {
  if (n.opset == opset) return true;
  if (n.op == nullptr) return false;
  const auto last_change = [&](std::int64_t version) {
    std::int64_t found = 0;
    for (const std::int16_t at : n.op->changed_at)
      if (at <= version) found = std::max<std::int64_t>(found, at);
    return found;
  };
  return last_change(n.opset) == last_change(opset);
}

/// A model imports each domain once; its functions, inlined by now, may have meant another version.
void unify_opsets(ir::Model& model) {
  ir::for_each_node(*model.graph, [&](ir::Node& n) {
    const auto it = model.info.opsets.emplace(n.domain, n.opset).first;
    if (!same_meaning(n, it->second))
      fail("unsupported-operator",
           "{} is meant as of opset {}, but the model imports {}: it came from a function of "
           "another opset",
           n.describe(), n.opset, it->second);
    n.opset = it->second;
  });
}

/// Says whether every node could be brought to the opset.
bool raise_opset(ir::Model& model, std::int64_t opset, Diagnostics& diagnostics,
                 std::map<std::string, std::size_t>& counts) {
  Diagnostics inference;  // it runs again, and tells then
  ops::infer_graph(*model.graph, inference);
  // Inference passes over the branch that a constant condition does not take; that is raised too.
  ir::for_each_node(*model.graph, [&](const ir::Node& n) {
    if (n.is("If") && n.input(0) != nullptr && n.input(0)->constant)
      for (ir::Graph* branch : n.subgraphs()) ops::infer_graph(*branch, inference);
  });
  const std::size_t rewritten = passes::upgrade(model, opset, diagnostics);
  if (rewritten > 0) counts["upgrade-opset"] = rewritten;
  return !diagnostics.has_errors();
}

/// A Gradient, if there is one: its attributes name values of the graph, which a smaller graph may
/// not have.
const ir::Node* gradient_in(const ir::Model& model) {
  const ir::Node* found = nullptr;
  ir::for_each_node(*model.graph, [&](const ir::Node& n) {
    if (n.is("Gradient", "ai.onnx.preview.training")) found = &n;
  });
  return found;
}

/// Defaults of inputs stay defaults: files of these versions whose weights are all listed as inputs
/// are read as those of old exporters, which had no other place for them. Where only defaults are
/// left, the version says that they are.
void keep_defaults(ir::Model& model) {
  constexpr std::int64_t kOldest = 4;
  constexpr std::int64_t kUnmistakable = 7;
  if (model.info.weights_are_inputs || model.info.ir_version < kOldest ||
      model.info.ir_version >= kUnmistakable)
    return;
  std::size_t defaults = 0;
  for (const ir::Value* v : model.graph->initializers) {
    if (v->constant && v->is_graph_input) ++defaults;
    if (v->constant && !v->is_graph_input && v->has_uses()) return;
  }
  if (defaults > 1) model.info.ir_version = kUnmistakable;
}

/// The declared types of outputs, where the user's input shapes make them narrower.
void narrow_outputs(ir::Graph& graph) {
  for (std::size_t i = 0; i < graph.output_count(); ++i) {
    ir::Type& declared = graph.output_types[i];
    const ir::Type& found = graph.output(i)->type;
    if (!declared.is_tensor() || !found.is_tensor() || !declared.shape.has_rank() ||
        !found.shape.has_rank())
      continue;
    if (declared.shape.rank() != found.shape.rank()) continue;
    for (std::size_t d = 0; d < declared.shape.rank(); ++d)
      if (found.shape[d].is_const()) declared.shape.dims()[d] = found.shape[d];
  }
}

std::string hint_for(std::string_view name, std::span<const passes::RuleInfo> known) {
  std::vector<std::string_view> names;
  for (const passes::RuleInfo& r : known) names.push_back(r.name);
  const std::string_view close = closest(name, names);
  const std::string what = close.empty() ? "" : "did you mean " + std::string(close) + "? ";
  return what + "onnx2nn simplify --list-rules names them";
}

passes::Options pass_options(const SimplifyOptions& options, Simplified& result,
                             std::vector<passes::Miss>& misses) {
  passes::Options o;
  o.change_weights = true;
  o.stop_after = options.stop_after;
  o.max_constant = options.max_constant;
  o.log = &result.log;
  if (!options.why_not.empty()) o.misses = &misses;
  const auto known = passes::rules();
  const std::pair<const std::vector<std::string>&, std::set<std::string, std::less<>>&> lists[] = {
      {options.disabled, o.disabled}, {options.only, o.only}, {options.why_not, o.why_not}};
  for (const auto& [names, into] : lists)
    for (const std::string& name : names) {
      if (std::none_of(known.begin(), known.end(),
                       [&](const passes::RuleInfo& r) { return r.name == name; }))
        throw Error("bad-option", "there is no rule \"" + name + "\"",
                    hint_for(name, known));
      into.insert(name);
    }
  return o;
}

/// Where a simplified model goes, and what becomes of what is there.
struct Destination {
  Outputs rules;
  std::string path;
  std::string data_path;
  std::vector<std::string> stale;
  bool in_place = false;

  Destination(const std::string& model, const std::string& out,
              const std::vector<std::string>& data_files, bool force)
      : rules(model, data_files, force), path(out), data_path(out + ".data") {
    check_model_suffix(path);
    in_place = rules.allow_in_place(path);
    rules.check(path);
    // In place, weights that others wrote stay where they are, as other models may need them.
    for (int n = 1; in_place && std::filesystem::exists(to_path(data_path)) && !is_ours(data_path); ++n)
      data_path = tagged(out + ".data", "." + std::to_string(n));
    stale.push_back(out + ".data");
    if (in_place) stale.insert(stale.end(), data_files.begin(), data_files.end());
  }

  AtomicFileSet files() const {
    AtomicFileSet out = rules.files();
    for (const std::string& file : stale) out.add_stale(file);
    return out;
  }
};

}  // namespace

struct StagedModel {
  std::unique_ptr<ir::Model> model;
  Destination destination;
  std::vector<std::string> files;  // as they lie in the staging folder
  std::optional<onnx::ModelFile> written;
};

namespace {

std::string in_folder(const std::string& folder, const std::string& path) {
  return path_text(to_path(folder) / to_path(path).filename());
}

/// The file as it is; what is written elsewhere says that we wrote it.
void copy_model(const InputFile& file, const Destination& to, const SimplifyOptions& options,
                Simplified& result) {
  const bool staged = !options.staging.empty();
  result.files = {staged ? in_folder(options.staging, to.path) : to.path};
  if (to.in_place && !staged) return;
  AtomicFileSet files = staged ? AtomicFileSet() : to.files();
  AtomicFile& copy = files.add(result.files.front());
  copy.append_range(file, 0, file.size());
  if (!to.in_place) {
    constexpr std::uint32_t kMetadata = 14;
    wire::Message entry;
    entry.text(1, kMark);
    entry.text(2, kVersion);
    wire::Message mark;
    mark.message(kMetadata, std::move(entry));
    copy.append(mark.str());
  }
  files.commit();
  if (staged)
    result.staged = std::make_shared<StagedModel>(
        StagedModel{nullptr, to, result.files, std::nullopt});
}

void set_mark(ir::Model& model) {
  auto& metadata = model.info.metadata;
  std::erase_if(metadata, [](const auto& entry) { return entry.first == kMark; });
  metadata.emplace_back(kMark, kVersion);
}

void say_what_is_left(const Destination& to, const std::vector<std::string>& data_files,
                      Diagnostics& diagnostics) {
  for (const std::string& file : data_files)
    if (to.in_place && !is_ours(file))
      diagnostics.add(Severity::Note, "left-behind",
                      printable(file) + " is no longer needed by this model",
                      "remove it if no other model needs it");
}

void write(std::unique_ptr<ir::Model> model, const Destination& to,
           const SimplifyOptions& options, bool external, Simplified& result) {
  if (!to.in_place) set_mark(*model);
  const auto write_to = [&](const std::string& path, const std::string& data, AtomicFileSet files) {
    const onnx::ModelFile file(*model, path, {external, data});
    file.add_to(files);
    // What can be made again is not worth waiting for the disk; a model in place cannot.
    files.commit(to.in_place && options.staging.empty());
    result.files = files.paths();
  };
  if (options.staging.empty()) return write_to(to.path, to.data_path, to.files());
  write_to(in_folder(options.staging, to.path), in_folder(options.staging, to.data_path),
           AtomicFileSet());
  const ir::Model& kept = *model;
  auto staged = std::make_shared<StagedModel>(
      StagedModel{std::move(model), to, result.files, std::nullopt});
  if (result.files.size() > 1)
    staged->written.emplace(kept, to.path, onnx::WriteOptions{external, to.data_path});
  result.staged = std::move(staged);
}

void run(Simplified& result, Diagnostics& diagnostics, std::shared_ptr<const InputFile> file,
         const std::string& folder, const std::string& out, const SimplifyOptions& options) {
  const std::string path = file->on_disk() ? file->path() : "";
  auto model = onnx::read_model(
      file, {folder, options.data_roots, options.drop_undefined_outputs}, diagnostics);
  result.readable = true;
  const std::vector<std::string> data = data_files(*model, path);
  std::optional<Destination> to;
  if (!out.empty()) to.emplace(path, out, data, options.force);
  ir::for_each_node(*model->graph, [](ir::Node& n) { n.op = ops::find_op(n.domain, n.op_type); });
  count(*model, result.nodes_before, result.op_types_before, result.weight_bytes_before);
  if (const ir::Node* gradient = gradient_in(*model)) {
    const std::string why = gradient->describe() + " names values of the graph";
    if (options.opset || !options.input_shapes.empty() || !options.free_dims.empty() ||
        !data.empty())
      fail("unsupported-operator", "{}, so that the graph has to stay as it is", why);
    diagnostics.add(Severity::Warning, "left-as-it-is", why + ": nothing was changed");
    count(*model, result.nodes_after, result.op_types_after, result.weight_bytes_after);
    if (to) return copy_model(*file, *to, options, result);
    result.model.assign(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
    return;
  }
  ops::check_operands(*model->graph, diagnostics);
  if (diagnostics.has_errors()) return;
  apply_input_shapes(*model, options.input_shapes);
  free_dims(*model, options.free_dims, diagnostics);
  if (diagnostics.has_errors()) return;
  {
    const Defaults defaults(*model);
    if (options.opset && !raise_opset(*model, *options.opset, diagnostics, result.rules)) return;
    unify_opsets(*model);
    Diagnostics inference;  // what inference minds stays in the model as it is
    std::vector<passes::Miss> misses;
    passes::simplify(*model, pass_options(options, result, misses), inference, result.rules);
    for (passes::Miss& m : misses)
      result.misses.push_back({std::move(m.rule), std::move(m.node), std::move(m.reason)});
    for (Diagnostic d : inference.list()) {
      d.severity = Severity::Warning;
      diagnostics.add(std::move(d));
    }
  }
  keep_defaults(*model);
  if (!options.input_shapes.empty()) narrow_outputs(*model->graph);
  count(*model, result.nodes_after, result.op_types_after, result.weight_bytes_after);
  if (!to) {
    result.model = onnx::serialize_model(*model);
    return;
  }
  const bool external = options.external_data || !data.empty();
  write(std::move(model), *to, options, external, result);
  say_what_is_left(*to, data, diagnostics);
}

template <typename Work>
Simplified guarded(const std::string& name, Work&& work) {
  Simplified result;
  Diagnostics diagnostics;
  collect_errors(diagnostics, [&] {
    work(result, diagnostics);
    result.ok = !diagnostics.has_errors();
  });
  result.diagnostics = infos_of(diagnostics);
  result.diagnostics_text = diagnostics.text(name);
  result.diagnostics_json = diagnostics.json();
  return result;
}

}  // namespace

std::vector<SimplifyRule> simplify_rules() {
  std::vector<SimplifyRule> out;
  for (const passes::RuleInfo& r : passes::rules())
    out.push_back({std::string(r.name), std::string(r.what)});
  return out;
}

Simplified simplify_file(const std::string& path, const std::string& out,
                         const SimplifyOptions& options) {
  return guarded(path, [&](Simplified& result, Diagnostics& diagnostics) {
    run(result, diagnostics, InputFile::open(path), folder_of(path), out, options);
  });
}

Simplified simplify_bytes(std::string bytes, const std::string& out, const SimplifyOptions& options,
                          const std::string& name) {
  return guarded(name, [&](Simplified& result, Diagnostics& diagnostics) {
    run(result, diagnostics, InputFile::from_memory(std::move(bytes)), "", out, options);
  });
}

Simplified publish(const StagedModel& model) {
  const Destination& to = model.destination;
  return guarded(to.path, [&](Simplified& result, Diagnostics&) {
    AtomicFileSet files = to.files();
    if (model.written) {
      files.adopt(model.files.back(), to.data_path);
      files.add_head(to.path, [&](std::string_view tag) { return model.written->text(tag); });
    } else {
      files.adopt(model.files.front(), to.path);
    }
    files.commit(to.in_place);
    result.files = files.paths();
  });
}

}  // namespace onnx2nn
