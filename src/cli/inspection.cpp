// `onnx2nn inspect`: one model in full, or several side by side.
#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include <fmt/core.h>

#include "cli/answer.h"
#include "cli/figures.h"
#include "cli/table.h"
#include "onnx2nn/convert.h"
#include "onnx2nn/inspect.h"
#include "support/clipped.h"
#include "support/path.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

// Lines about blocks, names in a list, characters of a text of the model's: --json has all.
constexpr std::size_t kMostBlocks = 40;
constexpr std::size_t kMostNames = 8;
constexpr std::size_t kMostText = 200;
// Columns of a terminal in which there is no room to spare.
constexpr std::size_t kNarrow = 80;

struct Model : Inspected {
  std::string path;
};

Model model_at(const Parsed& p, const std::string& path) {
  ConvertOptions options;
  options.simplify = !p.flag("no_simplify");
  options.allow_unknown = p.flag("allow_unknown");
  options.data_roots = p.texts("data_root");
  options.drop_undefined_outputs = p.flag("drop_undefined_outputs");
  options.input_shapes = input_shapes(p, path);
  return {inspected_file(path, options), path};
}

// ---- For people ----

std::string names(const std::vector<std::string>& list) {
  std::vector<std::string> shown;
  for (const std::string& name : list) {
    if (shown.size() == kMostNames) {
      shown.push_back(fmt::format("and {} more", list.size() - kMostNames));
      break;
    }
    shown.push_back(printable(name));
  }
  return join(shown, ", ");
}

std::string type_text(const PortInfo& port) {
  std::string out = port.kind == "tensor" ? "" : port.kind + " of ";
  out += port.dtype;
  if (port.shape) out += printable("[" + join(*port.shape, ", ") + "]");
  return out;
}

/// Whether the file leaves a size of it to who runs the model.
bool is_open(const PortInfo& port) {
  const auto is_number = [](const std::string& dim) {
    return std::all_of(dim.begin(), dim.end(), [](char c) { return is_digit(c); });
  };
  return port.kind == "tensor" && (!port.shape || !std::all_of(port.shape->begin(), port.shape->end(), is_number));
}

/// "25,557,032 (25.56 M)"; what is not known in full says so.
std::string in_full(const Quantity& q, std::string (*human)(const Amount&)) {
  if (q.unknown == 0) return human(q.all);
  const std::string unknown = counted(q.unknown, "part") + " unknown";
  return q.known.text == "0" ? fmt::format("? ({})", unknown)
                             : fmt::format("? ({}; at least {})", unknown, human(q.known));
}

std::string count_cell(const Amount& a) { return a.text == "0" ? "" : human_count(a); }
std::string bytes_cell(const Amount& a) { return a.text == "0" ? "" : human_bytes(a); }
std::string parameters_cell(std::uint64_t n) { return n == 0 ? "" : human_count(n); }

std::uint64_t weight_bytes(const Inspection& i) {
  std::uint64_t sum = 0;
  for (const auto& [_, w] : i.weights) sum += w.bytes;
  return sum;
}

std::string opsets_text(const Inspection& i) {
  std::vector<std::string> out;
  for (const auto& [domain, version] : i.opsets)
    out.push_back(fmt::format("{} {}", domain.empty() ? "ai.onnx" : printable(domain), version));
  return join(out, ", ");
}

std::string producer_text(const Inspection& i) {
  const std::string who = printable(std::string(strip(i.producer + " " + i.producer_version)));
  return fmt::format("{}, IR version {}", who.empty() ? "(not said)" : who, i.ir_version);
}

std::string weights_text(const Inspection& i) {
  std::vector<std::string> parts;
  for (const auto& [dtype, w] : i.weights)
    parts.push_back(fmt::format("{} {}", with_commas(w.elements), dtype));
  return human_bytes(weight_bytes(i)) +
         (parts.empty() ? "" : " (" + join(parts, ", ") + ")");
}

std::string nodes_text(const Model& it) {
  const ConversionStats& s = it.conversion->stats();
  if (!it.conversion->ok()) return fmt::format("{}", it.found.total.nodes);
  return fmt::format("{}, {} simplified", it.found.total.nodes, s.nodes_after);
}

std::string file_text(const ExternalFileInfo& f) {
  const std::string expected = human_bytes(f.expected);
  if (!f.size) return fmt::format("MISSING, {} expected for {}: {}", expected, counted(f.tensors, "tensor"), printable(f.why));
  const std::string size = human_bytes(*f.size);
  if (!f.why.empty()) return fmt::format("NOT WHOLE, {} of {} expected: {}", size, expected, printable(f.why));
  return fmt::format("{}, {}", size, counted(f.tensors, "tensor"));
}

std::string short_text(const std::string& text) {
  std::string out = printable(clipped(text, kMostText));
  return out + (text.size() > kMostText ? "..." : "");
}

Table ports_table(const Inspection& i) {
  Table out{{"", "name", "type"}, {}, 3};
  for (const PortInfo& port : i.inputs) out.rows.push_back({"input", printable(port.name), type_text(port)});
  for (const PortInfo& port : i.outputs) out.rows.push_back({"output", printable(port.name), type_text(port)});
  return out;
}

std::vector<std::string> figures_row(std::string name, const FigureInfo& f) {
  return {std::move(name), std::to_string(f.nodes), parameters_cell(f.parameters),
          count_cell(f.multiply_adds.all), bytes_cell(f.activation_bytes.all)};
}

Table operators_table(const Inspection& i) {
  Table out{{"operator", "nodes", "parameters", "multiply-adds", "activations"}, {}};
  std::vector<const std::pair<const std::string, FigureInfo>*> order;
  for (const auto& entry : i.operators) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->second.nodes > b->second.nodes; });
  for (const auto* entry : order) out.rows.push_back(figures_row(printable(entry->first), entry->second));
  out.rows.push_back(figures_row("all", i.total));
  return out;
}

/// Blocks as deep as there is room for; a row for each and the class of its module.
Table blocks_table(const Inspection& i, std::size_t width) {
  Table out{{"block", "nodes", "parameters", "multiply-adds", "activations"}, {}};
  std::map<std::size_t, std::size_t> of_depth;
  for (const BlockInfo& b : i.blocks) ++of_depth[b.depth];
  std::size_t depth = 0;
  std::size_t sum = 0;
  for (const auto& [d, count] : of_depth) {
    if (depth > 0 && sum + count > kMostBlocks) break;
    sum += count;
    depth = d;
  }
  std::vector<std::string_view> around;  // paths of the blocks around, the outermost first
  std::size_t left_out = 0;
  const std::size_t indent = width > 0 && width < kNarrow ? 1 : 2;
  for (const BlockInfo& b : i.blocks) {
    if (b.depth > depth) continue;
    if (out.rows.size() >= 2 * kMostBlocks) {
      ++left_out;
      continue;
    }
    around.resize(b.depth - 1);
    std::string_view name = b.path;
    if (!around.empty()) name.remove_prefix(around.back().size() + 1);
    around.push_back(b.path);
    const std::string type = b.type.empty() ? "" : " (" + printable(b.type) + ")";
    out.rows.push_back(figures_row(std::string(indent * (b.depth - 1), ' ') + printable(name) + type, b.figures));
  }
  if (left_out > 0) out.rows.push_back({fmt::format("and {} more (--json)", left_out), "", "", "", ""});
  return out;
}

Table nodes_table(const Inspection& i) {
  Table out{{"node", "operator", "outputs", "multiply-adds"}, {}, 3};
  for (const NodeInfo& n : i.nodes) {
    std::vector<std::string> types;
    for (const PortInfo& port : n.outputs) types.push_back(type_text(port));
    const std::string where = n.graph.empty() ? "" : printable(n.graph) + ": ";
    out.rows.push_back({where + (n.name.empty() ? "(unnamed)" : printable(n.name)), printable(n.op_type),
                        join(types, ", "), count_cell(n.multiply_adds)});
  }
  return out;
}

std::string in_full(const Model& it, bool nodes, std::size_t width) {
  const Inspection& i = it.found;
  std::string out = printable(it.path) + "\n";
  const auto line = [&](std::string_view label, const std::string& text) {
    out += fmt::format("  {:<20}{}\n", label, text);
  };
  line("producer", producer_text(i));
  line("opsets", opsets_text(i));
  line("nodes", nodes_text(it));
  line("parameters", fmt::format("{} ({})", with_commas(i.total.parameters),
                                 human_count(i.total.parameters)));
  line("weights", weights_text(i));
  line("multiply-adds", in_full(i.total.multiply_adds, human_count));
  line("activations", in_full(i.total.activation_bytes, human_bytes));
  line("", "at one time at most " + human_bytes(i.peak_bytes));
  const bool unknown =
      i.total.multiply_adds.unknown > 0 || i.total.activation_bytes.unknown > 0 || i.peak_bytes.text == "?";
  if (unknown && std::any_of(i.inputs.begin(), i.inputs.end(), is_open))
    line("", "(--input_shape says what is open)");
  if (i.model_version != 0) line("model version", std::to_string(i.model_version));
  if (!i.domain.empty()) line("domain", short_text(i.domain));
  if (!i.doc_string.empty()) line("description", short_text(i.doc_string));
  std::size_t entries = 0;
  for (const auto& [key, value] : i.metadata) {
    if (++entries > kMostNames) continue;
    line(entries == 1 ? "metadata" : "", short_text(key) + ": " + short_text(value));
  }
  if (entries > kMostNames) line("", fmt::format("and {} more", entries - kMostNames));
  bool first = true;
  for (const ExternalFileInfo& f : i.external_files) {
    line(first ? "external data" : "", printable(f.location) + ": " + file_text(f));
    first = false;
  }
  if (!i.unused_inputs.empty()) line("unused inputs", names(i.unused_inputs));
  if (!i.unused_initializers.empty()) line("unused initialisers", names(i.unused_initializers));
  out += "\n" + ports_table(i).text(width) + "\n" + operators_table(i).text(width);
  if (!i.blocks.empty()) out += "\n" + blocks_table(i, width).text(width);
  if (nodes) out += "\n" + nodes_table(i).text(width);
  return out + "\n";
}

std::string missing_text(const Inspection& i) {
  std::size_t missing = 0;
  for (const ExternalFileInfo& f : i.external_files) missing += f.why.empty() ? 0 : 1;
  if (i.external_files.empty()) return "";
  const std::string files = counted(i.external_files.size(), "file");
  return missing == 0 ? files : fmt::format("{} of {} MISSING", missing, files);
}

std::string result_text(ExitCode code) {
  switch (code) {
    case kDone: return "yes";
    case kWrong: return "no";
    case kUnreadable: return "unreadable";
    default: return "failed";
  }
}

/// A table of a column for each model, in several tables where they do not fit beside each other.
std::string side_by_side(const std::vector<Model>& list, std::size_t width) {
  std::vector<std::vector<std::string>> columns(1);  // the labels first
  columns[0] = {"", "producer", "opsets", "nodes", "parameters", "weights", "multiply-adds",
                "activations", "at one time", "inputs", "outputs", "external data", "convertible", ""};
  std::set<std::string> types;
  for (const Model& it : list)
    for (const auto& [type, _] : it.found.operators) types.insert(type);
  for (const std::string& type : types) columns[0].push_back(printable(type));
  std::map<std::string, std::size_t> stems;
  for (const Model& it : list) ++stems[file_name_of(it.path)];
  for (const Model& it : list) {
    const Inspection& i = it.found;
    const std::string stem = file_name_of(it.path);
    const auto types_of = [](const std::vector<PortInfo>& ports) {
      if (ports.size() > 2) return fmt::format("{} values", ports.size());
      std::vector<std::string> out;
      for (const PortInfo& port : ports) out.push_back(type_text(port));
      return join(out, ", ");
    };
    std::vector<std::string> column = {printable(stems[stem] > 1 ? it.path : stem)};
    if (i.readable) {
      const std::string bytes = human_bytes(weight_bytes(i));
      for (const std::string& cell :
           {printable(std::string(strip(i.producer + " " + i.producer_version))), opsets_text(i),
            it.conversion->ok() ? fmt::format("{} -> {}", i.total.nodes, it.conversion->stats().nodes_after)
                               : std::to_string(i.total.nodes),
            human_count(i.total.parameters), bytes, human_count(i.total.multiply_adds.all),
            human_bytes(i.total.activation_bytes.all), human_bytes(i.peak_bytes),
            types_of(i.inputs), types_of(i.outputs), missing_text(i)})
        column.push_back(cell);
    } else {
      column.resize(12);
    }
    column.push_back(result_text(it.code));
    column.emplace_back();
    for (const std::string& type : types) {
      const auto found = i.operators.find(type);
      column.push_back(found == i.operators.end() ? "" : std::to_string(found->second.nodes));
    }
    columns.push_back(std::move(column));
  }
  const auto width_of = [](const std::vector<std::string>& column) {
    std::size_t most = 0;
    for (const std::string& cell : column) most = std::max(most, display_width(cell));
    return most + 2;
  };
  std::string out;
  for (std::size_t at = 1; at < columns.size();) {
    Table table{{columns[0][0]}, {}};
    std::vector<std::size_t> shown = {0};
    std::size_t sum = width_of(columns[0]);
    while (at < columns.size() && (shown.size() == 1 || width == 0 || sum + width_of(columns[at]) <= width)) {
      sum += width_of(columns[at]);
      shown.push_back(at++);
    }
    table.header.clear();
    for (const std::size_t k : shown) table.header.push_back(columns[k][0]);
    for (std::size_t row = 1; row < columns[0].size(); ++row) {
      std::vector<std::string> cells;
      for (const std::size_t k : shown) cells.push_back(columns[k][row]);
      // What none of these models has is left out.
      const bool said = std::any_of(cells.begin() + 1, cells.end(), [](const auto& c) { return !c.empty(); });
      if (said || cells[0].empty()) table.rows.push_back(std::move(cells));
    }
    out += table.text(width) + "\n";
  }
  return out;
}

// ---- For programs ----

Json json_result(const Parsed& p, const Model& it) {
  Json out = result_of(p, it.code);
  out["model"] = it.path;
  if (!it.found.readable || it.code == kUsage || it.code == kUnreadable)
    out["error"] = std::string(strip(it.diagnostics_text));
  add_inspected(out, it, p.flag("list_nodes"));
  return out;
}

ExitCode worst(const std::vector<Model>& list) {
  constexpr ExitCode kOrder[] = {kDone, kNotChecked, kWrong, kUnreadable, kUsage, kInternal, kInterrupted};
  const auto place = [&](ExitCode code) { return std::find(std::begin(kOrder), std::end(kOrder), code); };
  ExitCode out = kDone;
  for (const Model& it : list)
    if (place(it.code) > place(out)) out = it.code;
  return out;
}

}  // namespace

Answer inspect(const Parsed& p, std::size_t width) {
  std::vector<std::string> paths = {p.text_of("model")};
  for (std::string& more : p.texts("more_models")) paths.push_back(std::move(more));
  std::vector<Model> list;
  for (const std::string& path : paths) list.push_back(model_at(p, path));
  Answer answer{worst(list), "", ""};
  if (p.json) {
    if (list.size() == 1) {
      answer.out = text_of(json_result(p, list[0])) + "\n";
      return answer;
    }
    Json out = result_of(p, answer.code);
    out["model"] = nullptr;
    out["models"] = Json::array();
    for (const Model& it : list) out["models"].push_back(json_result(p, it));
    answer.out = text_of(out) + "\n";
    return answer;
  }
  for (const Model& it : list) answer.err += it.diagnostics_text;
  if (p.flag("quiet") || (list.size() == 1 && (!list[0].found.readable || list[0].code == kUsage)))
    return answer;
  if (list.size() > 1) {
    answer.out = side_by_side(list, width);
    if (p.flag("list_nodes"))
      for (const Model& it : list)
        answer.out += printable(it.path) + "\n" + nodes_table(it.found).text(width) + "\n";
  } else {
    answer.out = in_full(list[0], p.flag("list_nodes"), width);
    if (answer.code == kDone) answer.out += "everything in it can be converted\n";
  }
  return answer;
}

}  // namespace onnx2nn::cli
