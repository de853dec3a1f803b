// `onnx2nn diff`: what one model has that another has not.
#include <algorithm>
#include <map>
#include <set>

#include <fmt/core.h>

#include "cli/answer.h"
#include "cli/table.h"
#include "onnx2nn/inspect.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

constexpr std::size_t kShown = 12;      // lines of a list without --all
constexpr std::size_t kOperators = 12;  // of a chain
constexpr std::size_t kPlaces = 3;      // of a group

// ---- For people ----

/// "Sub, Pow, 3 Add" of operators in order.
std::string chain(const std::vector<std::string>& types) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < types.size();) {
    std::size_t end = i;
    while (end < types.size() && types[end] == types[i]) ++end;
    if (out.size() == kOperators) {
      out.push_back(fmt::format("and {} more", types.size() - i));
      break;
    }
    out.push_back((end - i > 1 ? fmt::format("{} ", end - i) : "") + printable(types[i]));
    i = end;
  }
  return join(out, ", ");
}

std::string change_text(const Change& c) {
  const std::string what = printable(c.what);
  if (c.before.empty()) return what + ": " + printable(c.after);
  if (c.after.empty()) return what + ": " + printable(c.before);
  return what + ": " + printable(c.before) + " -> " + printable(c.after);
}

std::string interface_text(const Change& c) {
  const auto shown = [](const std::string& s) { return s.empty() ? "(none)" : printable(s); };
  return printable(c.what) + ": " + shown(c.before) + " -> " + shown(c.after);
}

/// Lines of a section, of which some are shown.
class Section {
 public:
  Section(std::string title, bool all) : title_(std::move(title)), all_(all) {}
  void add(const std::string& line) {
    if (++count_ <= kShown || all_) lines_ += "  " + line + "\n";
  }
  /// A line that belongs to the one before.
  void add_below(const std::string& line) {
    if (count_ <= kShown || all_) lines_ += "    " + line + "\n";
  }
  std::string text() const {
    if (count_ == 0) return "";
    std::string out = "\n" + title_ + "\n" + lines_;
    if (count_ > kShown && !all_) out += fmt::format("  and {} more (--all)\n", count_ - kShown);
    return out;
  }

 private:
  std::string title_, lines_;
  bool all_;
  std::size_t count_ = 0;
};

std::string operators_text(const ModelDifference& d, std::size_t width) {
  Table table{{"operator", "before", "after"}, {}};
  std::set<std::string> types;
  for (const auto& [type, _] : d.operators_before) types.insert(type);
  for (const auto& [type, _] : d.operators_after) types.insert(type);
  for (const std::string& type : types) {
    const auto count = [&](const std::map<std::string, std::size_t>& in) {
      const auto it = in.find(type);
      return it == in.end() ? std::size_t{0} : it->second;
    };
    const std::size_t a = count(d.operators_before);
    const std::size_t b = count(d.operators_after);
    if (a != b) table.rows.push_back({printable(type), std::to_string(a), std::to_string(b)});
  }
  table.rows.push_back({"all", std::to_string(d.nodes_before), std::to_string(d.nodes_after)});
  return table.text(width);
}

std::string weight_text(const WeightChange& w) {
  std::vector<std::string> parts;
  for (const Change& c : w.changes) parts.push_back(change_text(c));
  const std::string& name = w.name.empty() ? w.name_after : w.name;
  return (name.empty() ? "(a constant)" : printable(name)) + ": " + join(parts, "; ");
}

std::string places_text(const std::vector<std::string>& places) {
  std::vector<std::string> out;
  for (const std::string& place : places) {
    if (out.size() == kPlaces) {
      out.push_back(fmt::format("and {} more", places.size() - kPlaces));
      break;
    }
    out.push_back(place.empty() ? "(unnamed)" : printable(place));
  }
  return join(out, ", ");
}

std::string text_of(const Parsed& p, const ModelDifference& d, std::size_t width) {
  const bool all = p.flag("all");
  std::string out = printable(p.text_of("model")) + " -> " + printable(p.text_of("other")) + "\n\n";
  std::size_t renamed = 0;
  std::map<std::string, std::size_t> kinds;
  for (const WeightChange& w : d.weights) {
    if (w.renamed_only) {
      ++renamed;
    } else {
      ++kinds[w.name.empty() ? "added" : w.changes[0].what == "removed" ? "removed" : "changed"];
    }
  }
  out += operators_text(d, width);
  out += fmt::format("\n  nodes    {} equal, {} changed, {} removed, {} added\n", d.equal_nodes,
                     d.changed.size(), d.removed.size(), d.added.size());
  out += fmt::format("  weights  {} equal, {} renamed, {} changed, {} removed, {} added\n", d.equal_weights,
                     renamed, kinds["changed"], kinds["removed"], kinds["added"]);
  Section interface("interface", true);
  for (const Change& c : d.interface) interface.add(interface_text(c));
  Section replaced("removed -> added", all);
  for (const Replacement& r : d.replacements) {
    const std::string before = r.before.empty() ? "(nothing)" : chain(r.before);
    const std::string after = r.after.empty() ? "(nothing)" : chain(r.after);
    replaced.add(fmt::format("{} x  {} -> {}", r.places.size(), before, after));
    replaced.add_below("at " + places_text(r.places));
  }
  Section changed("changed nodes", all);
  for (const NodeChange& n : d.changed) {
    changed.add(fmt::format("{} ({})", n.name.empty() ? "(unnamed)" : printable(n.name), printable(n.op_type)));
    for (const Change& c : n.changes) changed.add_below(change_text(c));
  }
  Section weights("weights", all);
  for (const WeightChange& w : d.weights)
    if (!w.renamed_only) weights.add(weight_text(w));
  Section names("renamed weights", all);
  for (const WeightChange& w : d.weights)
    if (w.renamed_only) names.add(printable(w.name) + " -> " + printable(w.name_after));
  for (const Section* s : {&interface, &replaced, &changed, &weights, &names}) out += s->text();
  return out + "\n" + (d.equal ? "equal" : "different") + "\n";
}

// ---- For programs ----

Json text_or_null(const std::string& text) { return text.empty() ? Json(nullptr) : Json(model_text(text)); }

Json json_of(const std::vector<Change>& list) {
  Json out = Json::array();
  for (const Change& c : list)
    out.push_back(
        {{"what", model_text(c.what)}, {"before", model_text(c.before)}, {"after", model_text(c.after)}});
  return out;
}

Json json_of(const std::vector<NodePlace>& list) {
  Json out = Json::array();
  for (const NodePlace& n : list)
    out.push_back({{"name", model_text(n.name)}, {"op_type", model_text(n.op_type)}});
  return out;
}

void add(Json& out, const ModelDifference& d) {
  out["equal"] = d.equal;
  out["nodes_before"] = d.nodes_before;
  out["nodes_after"] = d.nodes_after;
  out["op_types_before"] = cli::json_of(d.operators_before);
  out["op_types_after"] = cli::json_of(d.operators_after);
  out["equal_nodes"] = d.equal_nodes;
  out["renamed_nodes"] = d.renamed_nodes;
  out["interface"] = json_of(d.interface);
  out["removed"] = json_of(d.removed);
  out["added"] = json_of(d.added);
  out["replacements"] = Json::array();
  for (const Replacement& r : d.replacements)
    out["replacements"].push_back(
        {{"before", model_texts(r.before)}, {"after", model_texts(r.after)}, {"places", model_texts(r.places)}});
  out["changed"] = Json::array();
  for (const NodeChange& n : d.changed)
    out["changed"].push_back({{"name", model_text(n.name)},
                              {"op_type", model_text(n.op_type)},
                              {"changes", json_of(n.changes)}});
  out["equal_weights"] = d.equal_weights;
  out["weight_changes"] = Json::array();
  for (const WeightChange& w : d.weights)
    out["weight_changes"].push_back({{"name", text_or_null(w.name)},
                                     {"name_after", text_or_null(w.name_after)},
                                     {"changes", json_of(w.changes)}});
}

}  // namespace

Answer diff(const Parsed& p, std::size_t width) {
  const ModelDifference d = diff_files(p.text_of("model"), p.text_of("other"),
                                       {p.texts("data_root"), p.flag("drop_undefined_outputs")});
  const bool compared = d.readable && std::none_of(d.diagnostics.begin(), d.diagnostics.end(),
                                                   [](const auto& e) { return e.severity == "error"; });
  const ExitCode code = !compared ? exit_code_of(d.diagnostics, d.readable) : d.equal ? kDone : kWrong;
  Answer answer{code, "", ""};
  if (p.json) {
    Json out = result_of(p, code);
    out["target"] = p.text_of("other");
    out["diagnostics"] = json_of(d.diagnostics);
    if (!compared) out["error"] = std::string(strip(d.diagnostics_text));
    if (compared) add(out, d);
    answer.out = cli::text_of(out) + "\n";
    return answer;
  }
  answer.err = d.diagnostics_text;
  if (compared && !p.flag("quiet")) answer.out = text_of(p, d, width);
  return answer;
}

}  // namespace onnx2nn::cli
