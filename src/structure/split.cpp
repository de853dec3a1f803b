#include "structure/split.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>

#include "structure/tidy.h"
#include "structure/walk.h"
#include "torch/python_names.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;
using torch::VarPtr;

// Lines that nobody minds, and those of a part at least and at most.
constexpr std::size_t kLong = 56;
constexpr std::size_t kFewest = 12;
constexpr std::size_t kMost = 46;
// Values that a part takes, and gives.
constexpr std::size_t kMaxTaken = 10;
constexpr std::size_t kMaxGiven = 5;

std::size_t lines_of(const Block& block);

std::size_t lines_of(const Stmt& s) {
  constexpr std::size_t kLine = 88;  // names are mostly shorter than they are taken for
  const std::size_t wide = width(*s.value) + 4 * s.targets.size();
  std::size_t out = wide <= kLine ? 1 : wide <= 2 * kLine ? 3 : 2 + s.value->args.size();
  if (s.kind == Stmt::Kind::Break) out = 2;
  return out + lines_of(s.body) + lines_of(s.orelse) + (s.orelse.empty() ? 0 : 1);
}

std::size_t lines_of(const Block& block) {
  std::size_t out = 0;
  for (const Stmt& s : block) out += lines_of(s);
  return out;
}

class Splitter {
 public:
  Splitter(torch::Class& c, std::size_t function) : class_(c), at_(function) {
    for (const torch::Function& f : c.functions) names_.insert(f.name);
    for (const Stmt& s : c.functions.front().body)
      if (s.kind == Stmt::Kind::Set) names_.insert(s.place->text);
  }

  void run() {
    Block& body = class_.functions[at_].body;
    for (const Stmt& s : body) {
      lines_.push_back(lines_of(s));
      // A function inside sees all variables.
      if (s.kind == Stmt::Kind::Def) return;
    }
    std::size_t total = 0;
    for (const std::size_t n : lines_) total += n;
    if (total <= kLong || body.back().kind != Stmt::Kind::Return) return;
    look();
    // What goes into a tuple takes a line there.
    for (std::size_t i = 0; i < body.size(); ++i)
      for (const VarPtr& v : body[i].targets)
        if (const Life& l = lives_.at(v->id); l.returned && l.reads.empty()) ++lines_[i];
    std::vector<std::pair<std::size_t, std::size_t>> parts;
    for (std::size_t start = 0; start + 1 < body.size();) {
      std::optional<std::size_t> end;
      std::size_t lines = 0;
      for (std::size_t i = start; i + 1 < body.size(); ++i) {
        lines += lines_[i];
        if (lines > kMost && end) break;
        if (lines < kFewest) continue;
        if (!end || crossing_[i + 1] <= crossing_[*end]) end = i + 1;
        if (lines > kMost) break;
      }
      if (!end) break;
      if (const Border b = border_of({start, *end}); b.taken.size() <= kMaxTaken && b.given.size() <= kMaxGiven) {
        parts.emplace_back(start, *end);
        start = *end;
      } else {
        ++start;
      }
    }
    if (parts.empty()) return;
    make(parts);
  }

 private:
  struct Life {
    std::vector<std::size_t> reads, writes;  // statements
    bool is_parameter = false;
    bool returned = false;
  };

  void look() {
    const Block& body = class_.functions[at_].body;
    for (const auto& p : class_.functions[at_].params) {
      lives_[p.var->id].is_parameter = true;
      next_ = std::max(next_, p.var->id + 1);
    }
    for (std::size_t i = 0; i < body.size(); ++i)
      each_var(body[i], [&](const VarPtr& v, bool sets) {
        Life& l = lives_[v->id];
        // What the function returns goes nowhere else.
        l.returned = l.returned || (!sets && body[i].kind == Stmt::Kind::Return);
        auto& all = sets ? l.writes : l.reads;
        if (body[i].kind != Stmt::Kind::Return && (all.empty() || all.back() != i)) all.push_back(i);
        next_ = std::max(next_, v->id + 1);
      });
    crossing_.assign(body.size() + 1, 0);
    std::vector<int> change(body.size() + 2, 0);
    for (const auto& [_, l] : lives_) {
      if (l.reads.empty()) continue;
      const std::size_t first = l.writes.empty() ? 0 : l.writes[0] + 1;
      if (first > l.reads.back()) continue;
      ++change[first];
      --change[l.reads.back() + 1];
    }
    int now = 0;
    for (std::size_t i = 0; i <= body.size(); ++i) crossing_[i] = now += change[i];
  }

  struct Border {
    std::vector<VarPtr> taken, given;
    std::vector<VarPtr> returned;  // by the function itself, and read by nobody else
  };

  Border border_of(const std::pair<std::size_t, std::size_t>& part) const {
    const Block& body = class_.functions[at_].body;
    Border out;
    std::set<int> seen;
    const auto within = [&](const std::vector<std::size_t>& all) {
      const auto it = std::lower_bound(all.begin(), all.end(), part.first);
      return it != all.end() && *it < part.second;
    };
    for (std::size_t i = part.first; i < part.second; ++i)
      each_var(body[i], [&](const VarPtr& v, bool) {
        if (!seen.insert(v->id).second) return;
        const Life& l = lives_.at(v->id);
        const bool comes_in = l.is_parameter || (!l.writes.empty() && l.writes[0] < part.first);
        if (comes_in) out.taken.push_back(v);
        if (!within(l.writes)) return;
        const bool alone = l.writes.front() >= part.first && l.writes.back() < part.second;
        if ((!l.reads.empty() && l.reads.back() >= part.second) || (l.returned && !alone)) {
          out.given.push_back(v);
        } else if (l.returned) {
          out.returned.push_back(v);
        }
      });
    if (out.given.size() + out.returned.size() <= kMaxGiven) {
      out.given.insert(out.given.end(), out.returned.begin(), out.returned.end());
      out.returned.clear();
    }
    return out;
  }

  void make(const std::vector<std::pair<std::size_t, std::size_t>>& parts) {
    std::vector<Border> borders;
    for (const auto& part : parts) borders.push_back(border_of(part));
    Block body = std::move(class_.functions[at_].body);
    Block out;
    std::vector<torch::Function> made;
    std::unordered_map<int, Element> elements;
    std::size_t at = 0;
    for (std::size_t k = 0; k < parts.size(); ++k) {
      const auto& part = parts[k];
      for (; at < part.first; ++at) out.push_back(std::move(body[at]));
      torch::Function f;
      Block inner(std::make_move_iterator(body.begin() + static_cast<std::ptrdiff_t>(part.first)),
                  std::make_move_iterator(body.begin() + static_cast<std::ptrdiff_t>(part.second)));
      at = part.second;
      f.name = claim(name_of(inner, k == 0, k + 1 == parts.size()));
      const Border& border = borders[k];
      const std::vector<VarPtr>& taken = border.taken;
      const std::vector<VarPtr>& given = border.given;
      std::unordered_map<int, VarPtr> clones;
      torch::Args args;
      for (const VarPtr& v : taken) {
        clones[v->id] = clone(v);
        f.params.push_back({clones[v->id], v->type, std::nullopt});
        args.emplace_back(v);
      }
      torch::Args results;
      bool tensors = true;
      for (const VarPtr& v : given) {
        if (clones.count(v->id) == 0) clones[v->id] = clone(v);
        results.emplace_back(clones[v->id]);
        tensors = tensors && v->type == "Tensor";
      }
      rewrite(inner, [&](const ExprPtr& e) -> ExprPtr {
        if (e->kind != ExprKind::Var) return nullptr;
        const auto it = clones.find(e->var->id);
        return it == clones.end() ? nullptr : Ex(it->second).ptr();
      });
      rename_targets(inner, [&](const VarPtr& v) {
        const auto it = clones.find(v->id);
        return it == clones.end() ? v : it->second;
      });
      if (tensors && results.size() == 1) f.returns = "Tensor";
      constexpr std::size_t kSpelt = 6;
      if (tensors && results.size() > 1) {
        f.returns = "tuple[Tensor";
        for (std::size_t i = 1; i < results.size() && results.size() <= kSpelt; ++i) f.returns += ", Tensor";
        f.returns += results.size() > kSpelt ? ", ...]" : "]";
      }
      std::vector<VarPtr> targets = given;
      if (!border.returned.empty()) {
        torch::Args all;
        for (const VarPtr& v : border.returned) all.emplace_back(v);
        auto outputs = std::make_shared<torch::Var>();
        outputs->id = next_++;
        outputs->hint = "outputs";
        targets.push_back(outputs);
        for (std::size_t n = 0; n < border.returned.size(); ++n)
          elements[border.returned[n]->id] = {outputs, n, border.returned.size()};
        results.push_back(torch::tuple(all));
        f.returns = results.size() == 1 ? "tuple[Tensor, ...]" : "";
        for (const VarPtr& v : border.returned)
          if (v->type != "Tensor") f.returns.clear();
      }
      Stmt ret;
      ret.kind = Stmt::Kind::Return;
      ret.value = results.size() == 1 ? results[0] : torch::tuple(results);
      if (results.empty()) f.returns = "None";
      Stmt call;
      call.origin = inner.front().origin;
      torch::Args all{torch::attribute(torch::self(), f.name)};
      all.insert(all.end(), args.begin(), args.end());
      call.value = torch::op("call", all);
      call.targets = targets;
      if (!results.empty()) inner.push_back(std::move(ret));
      f.body = std::move(inner);
      out.push_back(std::move(call));
      made.push_back(std::move(f));
    }
    if (!elements.empty()) take_from(body.back(), elements);
    for (; at < body.size(); ++at) out.push_back(std::move(body[at]));
    class_.functions[at_].body = std::move(out);
    for (torch::Function& f : made) class_.functions.push_back(std::move(f));
  }

  struct Element {
    VarPtr tuple;
    std::size_t at, size;
  };

  /// What the function returns of the parts' tuples.
  static void take_from(Stmt& ret, const std::unordered_map<int, Element>& elements) {
    const auto find = [&](const Expr& e) -> const Element* {
      const auto it = e.kind == ExprKind::Var ? elements.find(e.var->id) : elements.end();
      return it == elements.end() ? nullptr : &it->second;
    };
    const auto taken = [&](const ExprPtr& e) -> ExprPtr {
      const Element* x = find(*e);
      return x == nullptr ? nullptr : torch::op("[]", {Ex(x->tuple), Ex(x->at)}).ptr();
    };
    if (ret.value->kind != ExprKind::Tuple) {
      ret.value = Ex(rewritten(ret.value.ptr(), taken));
      return;
    }
    torch::Args out;
    const auto& all = ret.value->args;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const Element* x = find(*all[i]);
      bool whole = x != nullptr && x->at == 0 && i + x->size <= all.size();
      for (std::size_t k = 1; whole && k < x->size; ++k) {
        const Element* y = find(*all[i + k]);
        whole = y != nullptr && y->tuple == x->tuple && y->at == k;
      }
      if (whole) {
        out.push_back(torch::op("*", {Ex(x->tuple)}));
        i += x->size - 1;
      } else {
        out.emplace_back(rewritten(all[i], taken));
      }
    }
    ret.value = torch::tuple(out);
  }

  VarPtr clone(const VarPtr& like) {
    auto v = std::make_shared<torch::Var>(*like);
    v->id = next_++;
    v->name.clear();
    v->of = like;
    return v;
  }

  std::string claim(const std::string& name) {
    for (int& k = tried_[name];;) {
      ++k;
      std::string out = k == 1 ? name : name + std::to_string(k);
      if (!torch::is_module_member(out) && names_.insert(out).second) return out;
    }
  }

  static std::string name_of(const Block& part, bool first, bool last) {
    bool layers = false;
    bool lookup = false;
    for (const Stmt& s : part)
      each_expr(s, [&](const Expr& e) {
        layers = layers || e.kind == ExprKind::Self;
        if (e.kind == ExprKind::Attribute && e.text.find("emb") != std::string::npos) lookup = true;
        if (is_aten(e, "embedding")) lookup = true;
      });
    if (!layers) return last ? "decode" : first ? "prepare" : "compute";
    if (first) return lookup ? "embed" : "stem";
    return last ? "head" : "features";
  }

  torch::Class& class_;
  std::size_t at_;
  std::set<std::string> names_;
  std::map<std::string, int> tried_;  // numbers behind each name
  std::vector<std::size_t> lines_;
  std::vector<int> crossing_;  // before each statement
  std::map<int, Life> lives_;
  int next_ = 0;
};

}  // namespace

void split_methods(torch::Class& c) {
  const std::size_t count = c.functions.size();
  for (std::size_t i = 0; i < count; ++i)
    if (c.functions[i].name != "__init__") Splitter(c, i).run();
}

}  // namespace onnx2nn::structure
