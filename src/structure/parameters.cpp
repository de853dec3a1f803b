#include "structure/parameters.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "structure/relations.h"
#include "torch/python_names.h"

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;

/// The values of one hole in all modules; null where a module lacks it.
struct Column {
  std::vector<ExprPtr> values;
  std::vector<std::size_t> holes;
  std::string name;
  bool in_method = false;
  bool size = false;  // of a layer: never has a default
  std::optional<Relation> relation;  // what it is of another column
};

bool is_size(const std::string& name) {
  static const std::set<std::string> kSizes = {
      "in_channels",    "out_channels",  "channels",     "in_features",  "out_features",
      "num_features",   "features",      "dim",          "hidden_size",  "input_size",
      "num_embeddings", "embedding_dim", "num_channels", "mid_channels", "hidden_features",
      "normalized_shape"};
  return kSizes.count(name) != 0;
}

/// "in_channels" and "out_channels" say which side of a layer a number is on.
char side(const std::string& name) {
  return name == "in_channels" || name == "in_features" || name == "input_size" ? 'i'
         : name == "out_channels" || name == "out_features"                     ? 'o'
                                                                                : ' ';
}

bool is_norm(const std::string& layer) { return layer == "nn.LayerNorm" || layer == "nn.RMSNorm"; }

std::string stem_of(const std::string& name) {
  return name.ends_with("_channels") ? "channels" : "features";
}

class Finder {
 public:
  Finder(Tree& tree, const Own& first, const std::vector<Own*>& modules,
         const std::vector<Normal>& normals, std::size_t with, const std::string& optional)
      : tree_(tree), first_(first), modules_(modules), normals_(normals), with_(with), optional_(optional) {}

  Parameters run() {
    find_columns();
    relate_columns();
    name_columns();
    Parameters out;
    out.numbers.resize(normals_[0].holes.size());
    out.args.resize(modules_.size());
    out.keywords.resize(modules_.size());
    std::vector<std::pair<torch::Parameter, const Column*>> plain;
    std::vector<std::pair<torch::Parameter, const Column*>> optional;
    for (const Column& c : columns_) {
      if (c.relation) {
        const std::string& base = columns_[c.relation->base].name;
        for (const std::size_t h : c.holes)
          out.numbers[h] = c.relation->of(reference(h, base)).ptr();
        continue;
      }
      torch::Parameter p;
      p.var = tree_.new_var(c.name);
      p.var->name = c.name;
      const ExprKind kind = (*std::find_if(c.values.begin(), c.values.end(),
                                           [](const ExprPtr& v) { return v != nullptr; }))
                                ->kind;
      p.type = kind == ExprKind::Bool ? "bool" : kind == ExprKind::Float ? "float" : "int";
      if (c.in_method) out.stored.push_back(p.var);
      for (const std::size_t h : c.holes) out.numbers[h] = reference(h, c.name).ptr();
      if (!c.size) p.otherwise = Ex(commonest(c));
      (c.size ? plain : optional).emplace_back(std::move(p), &c);
    }
    for (auto* group : {&plain, &optional}) {
      for (auto& [p, c] : *group) {
        for (std::size_t i = 0; i < modules_.size(); ++i) {
          // Where the module has no use for it, any value does.
          const ExprPtr value = c->values[i] ? c->values[i] : p.otherwise ? p.otherwise->ptr() : commonest(*c);
          if (!p.otherwise) {
            out.args[i].emplace_back(value);
          } else {
            out.keywords[i].emplace_back(p.var->name, Ex(value));
          }
        }
        if (!p.otherwise) out.positional.push_back(p.var->name);
        out.declared.push_back(std::move(p));
      }
    }
    if (with_ > 0) add_flag(out);
    return out;
  }

 private:
  void find_columns() {
    const std::vector<Hole>& holes = normals_[0].holes;
    // Modules without the optional member lack its constructor's holes.
    std::vector<std::vector<ExprPtr>> values(holes.size());
    for (std::size_t m = 0; m < modules_.size(); ++m) {
      std::size_t at = 0;
      for (std::size_t h = 0; h < holes.size(); ++h) {
        const bool lacks = with_ > 0 && m >= with_ && holes[h].member == optional_;
        values[h].push_back(lacks ? nullptr : normals_[m].holes[at].value);
        if (!lacks) ++at;
      }
    }
    // What all modules have comes first, so that what only some have joins it.
    std::vector<std::size_t> order;
    for (const bool whole : {true, false})
      for (std::size_t h = 0; h < holes.size(); ++h)
        if ((std::count(values[h].begin(), values[h].end(), nullptr) == 0) == whole)
          order.push_back(h);
    for (const std::size_t h : order) {
      const ExprPtr* one = nullptr;
      bool differs = false;
      for (const ExprPtr& v : values[h]) {
        if (!v) continue;
        if (one == nullptr) one = &v;
        differs = differs || !equal(**one, *v);
      }
      const bool whole = std::count(values[h].begin(), values[h].end(), nullptr) == 0;
      if (!differs && (whole || side(holes[h].name) == ' ')) continue;
      auto it = std::find_if(columns_.begin(), columns_.end(), [&](const Column& c) {
        // One number may be the same as another by chance: both say which side they are on.
        if (!differs && std::none_of(c.holes.begin(), c.holes.end(), [&](std::size_t k) {
              return holes[k].name == holes[h].name;
            }))
          return false;
        for (std::size_t m = 0; m < modules_.size(); ++m)
          if (values[h][m] && (!c.values[m] || !equal(*c.values[m], *values[h][m]))) return false;
        return true;
      });
      if (it == columns_.end() && !differs) continue;
      if (it == columns_.end()) it = columns_.insert(columns_.end(), Column{values[h], {}, "", false, false});
      it->holes.push_back(h);
      it->in_method = it->in_method || holes[h].member.empty();
    }
    for (Column& c : columns_) std::sort(c.holes.begin(), c.holes.end());
    std::sort(columns_.begin(), columns_.end(),
              [](const Column& a, const Column& b) { return a.holes[0] < b.holes[0]; });
  }

  /// A parameter as a hole reads it: an attribute in methods, an argument in the constructor.
  Ex reference(std::size_t hole, const std::string& name) const {
    return normals_[0].holes[hole].member.empty() ? torch::attribute(torch::self(), name) : torch::name(name);
  }

  /// What follows from another column is no parameter.
  void relate_columns() {
    const std::vector<Hole>& holes = normals_[0].holes;
    std::vector<Quantity> quantities;
    for (const Column& c : columns_) {
      Quantity q;
      q.values = c.values;
      for (const std::size_t h : c.holes) {
        q.names.push_back(holes[h].name);
        q.width = q.width || (is_size(holes[h].name) && holes[h].of != "torch.empty");
        q.both_sides = q.both_sides || (holes[h].of.starts_with("nn.Conv") && side(holes[h].name) != ' ');
      }
      quantities.push_back(std::move(q));
    }
    const auto relations = find_relations(quantities);
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      columns_[c].relation = relations[c];
      if (relations[c] && columns_[c].in_method) columns_[relations[c]->base].in_method = true;
    }
  }

  void name_columns() {
    const std::vector<Hole>& holes = normals_[0].holes;
    std::size_t last_out = 0;
    for (std::size_t c = 0; c < columns_.size(); ++c)
      for (const std::size_t h : columns_[c].holes)
        if (side(holes[h].name) == 'o' && holes[h].member != optional_) last_out = std::max(last_out, h + 1);
    const auto widths = std::count_if(columns_.begin(), columns_.end(), [&](const Column& c) {
      return !c.relation && std::any_of(c.holes.begin(), c.holes.end(), [&](std::size_t h) {
        return side(holes[h].name) != ' ' && holes[h].member != optional_;
      });
    });
    std::set<std::string> used;
    for (const Member& m : first_.members) used.insert(m.name);
    bool named_in = false;
    for (Column& c : columns_) {
      if (c.relation) continue;
      std::string name;
      bool in = false;
      bool out = false;
      bool last = false;
      std::string stem = "channels";
      for (const std::size_t h : c.holes) {
        const Hole& hole = holes[h];
        if (side(hole.name) != ' ' && hole.member != optional_) {
          in = in || side(hole.name) == 'i';
          out = out || side(hole.name) == 'o';
          last = last || h + 1 == last_out;
          stem = stem_of(hole.name);
        }
        if (name.empty()) name = hole.name;
      }
      if (in || out) {
        const bool first_in = in && !named_in && side(holes[c.holes[0]].name) == 'i';
        name = first_in && (last || last_out == 0) ? stem
               : first_in                          ? "in_" + stem
               : last                              ? "out_" + stem
                                                   : (stem == "channels" ? "mid_" : "hidden_") + stem;
        named_in = named_in || first_in;
        // The width of which all others are multiples.
        if (in && out && widths == 1) name = is_norm(holes[c.holes[0]].of) ? "dim" : stem;
      }
      c.size = is_size(name);
      if (name.empty() || !torch::is_ascii_identifier(name) || name == "other" || name == "self" ||
          name == "index" || name == "input")
        name = holes[c.holes[0]].member.empty() ? "value" : "size";
      std::string free = name;
      const auto taken = [&](const std::string& n) {
        return used.count(n) != 0 || torch::is_python_keyword(n) || torch::is_module_member(n) ||
               torch::is_source_name(n);
      };
      const std::string& member = holes[c.holes[0]].member;
      if (taken(free) && !member.empty() && torch::is_ascii_identifier(member + "_" + name))
        free = member + "_" + name;
      for (int k = 2; taken(free); ++k) free = name + std::to_string(k);
      used.insert(free);
      c.name = free;
    }
  }

  static ExprPtr commonest(const Column& c) {
    ExprPtr best;
    std::ptrdiff_t most = 0;
    for (const ExprPtr& v : c.values) {
      if (!v) continue;
      const auto n = std::count_if(c.values.begin(), c.values.end(),
                                   [&](const ExprPtr& w) { return w && equal(*v, *w); });
      if (n > most) {
        most = n;
        best = v;
      }
    }
    return best;
  }

  void add_flag(Parameters& out) {
    torch::Parameter p;
    p.var = tree_.new_var(optional_);
    p.var->name = optional_;
    p.type = "bool";
    const bool mostly = 2 * with_ > modules_.size();
    p.otherwise = Ex(mostly);
    for (std::size_t i = 0; i < modules_.size(); ++i)
      out.keywords[i].emplace_back(optional_, Ex(i < with_));
    out.flag = p.var;
    out.declared.push_back(std::move(p));
  }

  Tree& tree_;
  const Own& first_;
  const std::vector<Own*>& modules_;
  const std::vector<Normal>& normals_;
  std::size_t with_;
  const std::string& optional_;
  std::vector<Column> columns_;
};

}  // namespace

Parameters find_parameters(Tree& tree, const Own& first, const std::vector<Own*>& modules,
                           const std::vector<Normal>& normals, std::size_t with,
                           const std::string& optional) {
  return Finder(tree, first, modules, normals, with, optional).run();
}

}  // namespace onnx2nn::structure
