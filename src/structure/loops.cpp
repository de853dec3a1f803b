#include "structure/loops.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "structure/names.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Stmt;
using torch::VarPtr;

/// `self.a.b` or `self.a[1]`, as a name to compare by; empty for anything else.
std::string chain_text(const Expr& e) {
  if (e.kind == ExprKind::Self) return "self";
  if (e.kind == ExprKind::Attribute) {
    const std::string inner = chain_text(*e.args[0]);
    return inner.empty() ? "" : inner + "." + e.text;
  }
  if (e.kind == ExprKind::Op && e.text == "[]" && e.args[1]->kind == ExprKind::Int) {
    const std::string inner = chain_text(*e.args[0]);
    return inner.empty() ? "" : inner + "[" + std::to_string(e.args[1]->integer) + "]";
  }
  return "";
}

/// The list and the number, where `e` is an element of a list of modules.
std::optional<std::pair<std::string, std::int64_t>> element(const Expr& e) {
  if (e.kind != ExprKind::Op || e.text != "[]" || e.args[1]->kind != ExprKind::Int)
    return std::nullopt;
  std::string list = chain_text(*e.args[0]);
  if (list.empty()) return std::nullopt;
  return std::pair(std::move(list), e.args[1]->integer);
}

struct List {
  ExprPtr chain;
  std::map<std::int64_t, std::pair<std::size_t, std::size_t>> used;  // by number: first, last use
};

/// A place in a turn where a variable is set: the statement of the turn, the target.
using Slot = std::pair<std::size_t, std::size_t>;

/// `turns` runs of `period` statements from `start` on, equal but for what they read.
class Roller {
 public:
  Roller(Tree& tree, Own& own, Method& method, const std::string& list, const List& uses, std::int64_t first,
         std::size_t start, std::size_t period, std::size_t turns)
      : tree_(tree),
        own_(own),
        method_(method),
        list_(list),
        uses_(uses),
        first_(first),
        start_(start),
        period_(period),
        turns_(turns) {}

  /// Changes the method where it is a loop; else says no and changes nothing.
  bool run() {
    Block& b = method_.body;
    for (std::size_t i = 0; i < period_ * turns_; ++i)
      if (b[start_ + i].kind != Stmt::Kind::Assign) return false;
    for (std::size_t i = 0; i < period_ * turns_; ++i)
      for (std::size_t k = 0; k < at(i).targets.size(); ++k) {
        // Set twice: its last value is not that of one place.
        if (!set_.emplace(at(i).targets[k]->id, std::pair(i, k)).second) return false;
      }
    for (std::size_t s = 0; s < period_; ++s) {
      for (std::size_t j = 1; j < turns_; ++j) {
        turn_ = j;
        statement_ = s;
        if (at(j * period_ + s).targets.size() != at(s).targets.size()) return false;
        place_ = 0;
        if (!same(*at(s).value, *at(j * period_ + s).value)) return false;
      }
    }
    // A slice of a module that is itself a list would be made by its own constructor.
    const bool whole = first_ == 0 && first_ + static_cast<std::int64_t>(turns_) >
                                          uses_.used.rbegin()->first;
    if (!whole && uses_.chain->kind == ExprKind::Self) return false;
    if (turns_ < 2 || !classify() || !find_results()) return false;
    build();
    return true;
  }

 private:
  Stmt& at(std::size_t i) { return method_.body[start_ + i]; }
  std::size_t end() const { return start_ + period_ * turns_; }

  /// Where variable `id` is set within turn `j`.
  std::optional<Slot> slot_in(int id, std::size_t j) const {
    const auto it = set_.find(id);
    if (it == set_.end() || it->second.first / period_ != j) return std::nullopt;
    return Slot(it->second.first % period_, it->second.second);
  }

  bool same(const Expr& a, const Expr& b) {
    if (const auto x = element(a); x && x->first == list_) {
      const auto y = element(b);
      return y && y->first == list_ && x->second == first_ &&
             y->second == first_ + static_cast<std::int64_t>(turn_);
    }
    if (a.kind != b.kind || a.text != b.text || a.args.size() != b.args.size() ||
        a.keywords.size() != b.keywords.size())
      return false;
    if (a.kind == ExprKind::Var) {
      const auto x = slot_in(a.var->id, 0);
      const auto y = slot_in(b.var->id, turn_);
      if (x || y) return x == y;
      auto& values = outer_[{statement_, place_++}];
      if (values.empty()) values.push_back(a.var);
      values.push_back(b.var);
      return values.size() == turn_ + 1;
    }
    if (a.integer != b.integer || a.param != b.param || a.module != b.module ||
        a.constant != b.constant)
      return false;
    if (a.kind == ExprKind::Float && !torch::same_number(a.number, b.number)) return false;
    for (std::size_t i = 0; i < a.args.size(); ++i)
      if (!same(*a.args[i], *b.args[i])) return false;
    for (std::size_t i = 0; i < a.keywords.size(); ++i)
      if (a.keywords[i].first != b.keywords[i].first ||
          !same(*a.keywords[i].second, *b.keywords[i].second))
        return false;
    return true;
  }

  /// What each outer variable is to a turn: the same for all, what the turn before has set, or one of
  /// a list.
  bool classify() {
    for (const auto& [where, values] : outer_) {
      const int first = values[0]->id;
      const bool fixed = std::all_of(values.begin(), values.end(),
                                     [&](const VarPtr& v) { return v->id == first; });
      if (fixed) {
        if (set_.count(values[0]->id) != 0) return false;
        continue;
      }
      if (set_.count(values[0]->id) != 0) return false;
      std::optional<Slot> from = slot_in(values[1]->id, 0);
      for (std::size_t j = 1; from && j < turns_; ++j)
        if (slot_in(values[j]->id, j - 1) != from) from = std::nullopt;
      if (from) {
        const auto [it, is_new] = carried_.emplace(*from, values[0]);
        if (!is_new && it->second->id != values[0]->id) return false;
        read_carried_[*from] = std::max(read_carried_[*from], where.first + 1);
        carried_by_first_[values[0]->id].insert(*from);
        place_carried_[where] = *from;
        continue;
      }
      for (const VarPtr& v : values)
        if (set_.count(v->id) != 0) return false;
      std::vector<int> ids;
      for (const VarPtr& v : values) ids.push_back(v->id);
      zipped_.emplace(std::move(ids), values);
      place_zipped_[where] = values;
    }
    return true;
  }

  /// Which results are used after the loop, and of which turns.
  bool find_results() {
    std::map<Slot, std::set<std::size_t>> used;
    const auto see = [&](int id) {
      if (const auto it = set_.find(id); it != set_.end())
        used[{it->second.first % period_, it->second.second}].insert(it->second.first / period_);
    };
    for (std::size_t i = 0; i < method_.body.size(); ++i) {
      if (i >= start_ && i < end()) continue;
      bool bad = false;
      each_var(method_.body[i], [&](const VarPtr& v, bool sets) {
        if (set_.count(v->id) == 0) return;
        bad = bad || sets || i < start_;
        see(v->id);
      });
      if (bad) return false;
    }
    for (const VarPtr& v : method_.results) see(v->id);
    for (const auto& [slot, turns] : used) {
      if (turns.size() == 1 && *turns.begin() == turns_ - 1) {
        last_.insert(slot);
      } else {
        collected_.push_back(slot);
      }
    }
    return std::none_of(method_.results.begin(), method_.results.end(),
                        [&](const VarPtr& v) { return place_of(v->id).has_value(); }) ||
           find_call();
  }

  /// Where in the collection the variable of one turn is.
  std::optional<std::size_t> place_of(int id) const {
    const auto it = set_.find(id);
    if (it == set_.end()) return std::nullopt;
    const Slot slot(it->second.first % period_, it->second.second);
    const auto c = std::find(collected_.begin(), collected_.end(), slot);
    if (c == collected_.end()) return std::nullopt;
    return it->second.first / period_ * collected_.size() +
           static_cast<std::size_t>(c - collected_.begin());
  }

  /// A method gives variables, not elements of a list: who calls it has to take the list. Only the root is
  /// asked, only once, and only to take all of it.
  bool find_call() {
    const auto results = std::count_if(method_.results.begin(), method_.results.end(),
                                       [&](const VarPtr& v) { return place_of(v->id).has_value(); });
    if (static_cast<std::size_t>(results) != turns_ * collected_.size()) return false;
    if (own_.parent == nullptr || own_.parent->parent != nullptr || method_.results.size() < 2)
      return false;
    std::size_t calls = 0;
    for (Method& m : own_.parent->methods) {
      for (std::size_t i = 0; i < m.body.size(); ++i) {
        each_expr(m.body[i], [&](const Expr& e) { calls += calls_this(e) ? 1 : 0; });
        const Stmt& s = m.body[i];
        if (s.kind != Stmt::Kind::Assign || !calls_this(*s.value) ||
            s.targets.size() != method_.results.size())
          continue;
        caller_ = &m;
        call_ = i;
      }
    }
    if (calls != 1 || caller_ == nullptr) return false;
    std::set<int> taken;
    for (std::size_t r = 0; r < method_.results.size(); ++r)
      if (place_of(method_.results[r]->id)) taken.insert(caller_->body[call_].targets[r]->id);
    bool ok = std::none_of(caller_->results.begin(), caller_->results.end(),
                           [&](const VarPtr& v) { return taken.count(v->id) != 0; });
    for (std::size_t i = call_ + 1; i < caller_->body.size(); ++i)
      each_var(caller_->body[i],
               [&](const VarPtr& v, bool sets) { ok = ok && !(sets && taken.count(v->id) != 0); });
    return ok;
  }

  bool calls_this(const Expr& e) const {
    return e.kind == ExprKind::Method && e.integer == own_.id && e.text == method_.name;
  }

  /// Gives the caller the collection in place of what is in it.
  void give_collection(const VarPtr& collection) {
    Stmt& call = caller_->body[call_];
    const VarPtr taken = tree_.clone(collection);
    std::unordered_map<int, ExprPtr> later;
    std::vector<VarPtr> results;
    std::vector<VarPtr> targets;
    for (std::size_t r = 0; r < method_.results.size(); ++r) {
      const VarPtr& target = call.targets[r];
      const auto place = place_of(method_.results[r]->id);
      if (place) {
        if (later.empty()) {
          results.push_back(collection);
          targets.push_back(taken);
        }
        later[target->id] = torch::op("[]", {Ex(taken), Ex(*place)}).ptr();
      } else {
        results.push_back(method_.results[r]);
        targets.push_back(target);
      }
    }
    method_.results = std::move(results);
    call.targets = std::move(targets);
    Block rest(std::make_move_iterator(caller_->body.begin() + static_cast<std::ptrdiff_t>(call_) + 1),
               std::make_move_iterator(caller_->body.end()));
    caller_->body.resize(call_ + 1);
    read_later(rest, later, taken.get());
    for (Stmt& s : rest) caller_->body.push_back(std::move(s));
  }

  /// Lets statements after the loop read what it leaves.
  void read_later(Block& block, const std::unordered_map<int, ExprPtr>& later,
                  const torch::Var* collection) const {
    rewrite(block, [&](const ExprPtr& e) -> ExprPtr {
      if (collection != nullptr && (e->kind == ExprKind::Tuple || e->kind == ExprKind::List))
        return with_all(e, later, *collection);
      if (e->kind != ExprKind::Var) return nullptr;
      const auto it = later.find(e->var->id);
      return it == later.end() ? nullptr : it->second;
    });
  }

  void build() {
    Block& b = method_.body;
    std::unordered_map<int, VarPtr> names;  // of the first turn's and of earlier variables
    Block before;
    std::vector<std::pair<VarPtr, VarPtr>> passed_on;  // at the end of a turn
    std::map<Slot, VarPtr> variable;
    for (const auto& [slot, init] : carried_) {
      const VarPtr made = at(slot.first).targets[slot.second];
      VarPtr var = init;
      if (is_used_elsewhere(init->id) || carried_by_first_[init->id].size() > 1) {
        var = tree_.clone(made);
        Stmt s;
        s.targets = {var};
        s.value = Ex(init);
        before.push_back(std::move(s));
      }
      variable[slot] = var;
      // Read again after it is set: the turn's own value waits until the end.
      if (read_carried_[slot] > slot.first + 1) {
        passed_on.emplace_back(var, made);
      } else {
        names[made->id] = var;
      }
    }
    // The list of the turns' modules, and of what else differs.
    Stmt loop;
    loop.kind = Stmt::Kind::For;
    const std::string name = list_.substr(list_.rfind('.') + 1);
    VarPtr item = tree_.new_var(singular(name));
    loop.targets = {item};
    Ex over(uses_.chain);
    const auto last = uses_.used.rbegin()->first;
    const bool to_end = first_ + static_cast<std::int64_t>(turns_) > last;
    if (first_ > 0 || !to_end)
      over = torch::op("[]", {over, torch::op("slice", {first_ > 0 ? Ex(first_) : Ex(),
                                                         to_end ? Ex() : Ex(first_ + static_cast<std::int64_t>(turns_))})});
    torch::Args all{over};
    std::map<std::vector<int>, VarPtr> zipped;
    for (const auto& [ids, values] : zipped_) {
      zipped[ids] = tree_.clone(values[0]);
      zipped[ids]->hint = common_hint(values[0]->hint, values[1]->hint);
      loop.targets.push_back(zipped[ids]);
      torch::Args items;
      for (const VarPtr& v : values) items.emplace_back(v);
      all.push_back(torch::tuple(items));
    }
    loop.value = all.size() == 1 ? over : torch::op("zip", all);
    for (std::size_t s = 0; s < period_; ++s) {
      for (std::size_t k = 0; k < at(s).targets.size(); ++k)
        at(s).targets[k]->hint =
            common_hint(at(s).targets[k]->hint, at(period_ + s).targets[k]->hint);
      Stmt copy = at(s);
      std::size_t place = 0;
      copy.value = Ex(renamed(copy.value.ptr(), s, place, item, names, variable, zipped));
      loop.body.push_back(std::move(copy));
    }
    rename_targets(loop.body, [&](const VarPtr& v) {
      const auto it = names.find(v->id);
      return it == names.end() ? v : it->second;
    });
    VarPtr collection;
    if (!collected_.empty()) {
      const bool caches = std::all_of(collected_.begin(), collected_.end(), [&](const Slot& slot) {
        return at(slot.first).targets[slot.second]->hint.starts_with("present");
      });
      collection = tree_.new_var(caches ? "present" : "outputs");
      // Type checkers see what a list holds by what is appended, and by nothing else.
      if (collected_.size() > 1 || caller_ != nullptr) collection->type = "list[Tensor]";
      Stmt empty;
      empty.targets = {collection};
      empty.value = torch::list({});
      before.push_back(std::move(empty));
      torch::Args each;
      for (const Slot& slot : collected_) each.emplace_back(now(slot, names));
      Stmt add;
      add.value = each.size() == 1 ? torch::op(".append", {Ex(collection), each[0]})
                                   : torch::op(".extend", {Ex(collection), torch::tuple(each)});
      loop.body.push_back(std::move(add));
    }
    for (const auto& [var, made] : passed_on) {
      Stmt s;
      s.targets = {var};
      s.value = Ex(made);
      loop.body.push_back(std::move(s));
    }
    // Everything after it reads what the loop leaves.
    std::unordered_map<int, ExprPtr> later;
    for (const auto& [id, where] : set_) {
      const Slot slot(where.first % period_, where.second);
      const std::size_t turn = where.first / period_;
      if (const auto place = place_of(id)) {
        later[id] = torch::op("[]", {Ex(collection), Ex(*place)}).ptr();
      } else if (turn == turns_ - 1) {
        later[id] = Ex(carried_.count(slot) != 0 ? variable[slot] : now(slot, names)).ptr();
      }
    }
    Block out(std::make_move_iterator(b.begin()),
              std::make_move_iterator(b.begin() + static_cast<std::ptrdiff_t>(start_)));
    for (Stmt& s : before) out.push_back(std::move(s));
    out.push_back(std::move(loop));
    Block rest(std::make_move_iterator(b.begin() + static_cast<std::ptrdiff_t>(end())),
               std::make_move_iterator(b.end()));
    read_later(rest, later, collection.get());
    for (Stmt& s : rest) out.push_back(std::move(s));
    if (caller_ != nullptr) give_collection(collection);
    for (VarPtr& v : method_.results)
      if (const auto it = later.find(v->id); it != later.end()) v = it->second->var;
    b = std::move(out);
  }

  /// The variable of a slot in the loop's body.
  VarPtr now(const Slot& slot, const std::unordered_map<int, VarPtr>& names) {
    const VarPtr made = at(slot.first).targets[slot.second];
    const auto it = names.find(made->id);
    return it == names.end() ? made : it->second;
  }

  /// All of the collection in a row is `*outputs`, one of each turn `*outputs[1::2]`.
  ExprPtr with_all(const ExprPtr& e, const std::unordered_map<int, ExprPtr>& later,
                   const torch::Var& collection) const {
    const std::size_t size = turns_ * collected_.size();
    const auto index = [&](const ExprPtr& x) -> std::optional<std::int64_t> {
      if (x->kind != ExprKind::Var) return std::nullopt;
      const auto it = later.find(x->var->id);
      if (it == later.end() || it->second->kind != ExprKind::Op) return std::nullopt;
      if (it->second->args[0]->var->id != collection.id) return std::nullopt;
      return it->second->args[1]->integer;
    };
    auto copy = Ex::make(e->kind);
    for (std::size_t i = 0; i < e->args.size(); ++i) {
      bool whole = i + size <= e->args.size();
      for (std::size_t k = 0; whole && k < size; ++k)
        whole = index(e->args[i + k]) == static_cast<std::int64_t>(k);
      if (whole) {
        const auto it = later.find(e->args[i]->var->id);
        copy->add(torch::op("*", {Ex(it->second->args[0])}).ptr());
        i += size - 1;
        continue;
      }
      const std::optional<std::int64_t> first = index(e->args[i]);
      const auto step = static_cast<std::int64_t>(collected_.size());
      bool strided = first && *first < step && i + turns_ <= e->args.size();
      for (std::size_t k = 0; strided && k < turns_; ++k)
        strided = index(e->args[i + k]) == *first + static_cast<std::int64_t>(k) * step;
      if (strided) {
        const Ex range = torch::op("slice", {*first > 0 ? Ex(*first) : Ex(), Ex(), Ex(step)});
        const Ex all(later.find(e->args[i]->var->id)->second->args[0]);
        copy->add(torch::op("*", {torch::op("[]", {all, range})}).ptr());
        i += turns_ - 1;
        continue;
      }
      copy->add(rewritten(e->args[i], [&](const ExprPtr& x) -> ExprPtr {
        if (x->kind != ExprKind::Var) return nullptr;
        const auto it = later.find(x->var->id);
        return it == later.end() ? nullptr : it->second;
      }));
    }
    return copy;
  }

  bool is_used_elsewhere(int id) const {
    bool used = false;
    for (std::size_t i = 0; i < method_.body.size(); ++i) {
      if (i >= start_ && i < end()) continue;
      each_var(method_.body[i], [&](const VarPtr& v, bool sets) {
        // Its own definition is none.
        used = used || (v->id == id && (!sets || i >= end()));
      });
    }
    for (const VarPtr& v : method_.results) used = used || v->id == id;
    // Read by the turns in another way than as what is carried.
    for (const auto& [where, values] : outer_)
      for (const VarPtr& v : values)
        used = used || (v->id == id && place_carried_.count(where) == 0);
    return used;
  }

  ExprPtr renamed(const ExprPtr& e, std::size_t statement, std::size_t& place,
                  const VarPtr& item_var, const std::unordered_map<int, VarPtr>& names,
                  const std::map<Slot, VarPtr>& variable,
                  const std::map<std::vector<int>, VarPtr>& zipped) {
    return rewritten(e, [&](const ExprPtr& x) -> ExprPtr {
      if (const auto found = element(*x); found && found->first == list_) return Ex(item_var).ptr();
      if (x->kind != ExprKind::Var) return nullptr;
      if (slot_in(x->var->id, 0)) {
        const auto it = names.find(x->var->id);
        return it == names.end() ? nullptr : Ex(it->second).ptr();
      }
      const std::pair where(statement, place++);
      if (const auto it = place_carried_.find(where); it != place_carried_.end())
        return Ex(variable.at(it->second)).ptr();
      if (const auto it = place_zipped_.find(where); it != place_zipped_.end()) {
        std::vector<int> ids;
        for (const VarPtr& v : it->second) ids.push_back(v->id);
        return Ex(zipped.at(ids)).ptr();
      }
      return nullptr;
    });
  }

  static std::string singular(const std::string& name) {
    std::string out = name;
    if (const auto bracket = out.find('['); bracket != std::string::npos) out.resize(bracket);
    if (out.size() > 3 && out.back() == 's' && out[out.size() - 2] != 's') out.pop_back();
    return out == "self" ? "layer" : out;
  }

  Tree& tree_;
  Own& own_;
  Method& method_;
  Method* caller_ = nullptr;  // where the collection goes to
  std::size_t call_ = 0;      // the caller's statement
  const std::string& list_;
  const List& uses_;
  std::int64_t first_;
  std::size_t start_, period_, turns_;
  std::unordered_map<int, std::pair<std::size_t, std::size_t>> set_;  // by variable: statement, target
  using Where = std::pair<std::size_t, std::size_t>;  // statement of a turn, which outer variable of it
  std::map<Where, std::vector<VarPtr>> outer_;        // by turn
  std::map<Slot, VarPtr> carried_;                    // what the first turn takes
  std::map<Slot, std::size_t> read_carried_;          // one past the last statement that reads it
  std::map<int, std::set<Slot>> carried_by_first_;
  std::map<Where, Slot> place_carried_;
  std::map<std::vector<int>, std::vector<VarPtr>> zipped_;
  std::map<Where, std::vector<VarPtr>> place_zipped_;
  std::set<Slot> last_;
  std::vector<Slot> collected_;
  std::size_t turn_ = 0, statement_ = 0, place_ = 0;
};

std::map<std::string, List> lists_of(const Method& method) {
  std::map<std::string, List> out;
  for (std::size_t i = 0; i < method.body.size(); ++i) {
    each_expr(method.body[i], [&](const Expr& e) {
      const auto found = element(e);
      if (!found) return;
      List& list = out[found->first];
      list.chain = e.args[0];
      const auto [it, is_new] = list.used.emplace(found->second, std::pair(i, i));
      if (!is_new) it->second.second = i;
    });
  }
  return out;
}

bool roll(Tree& tree, Own& own, Method& method, const std::string& name, const List& list) {
  std::vector<std::int64_t> numbers;
  for (const auto& [n, _] : list.used) numbers.push_back(n);
  const std::size_t count = numbers.size();
  if (count < 2) return false;
  // The longest run of equal turns, from the first or the second element on.
  for (std::size_t from = 0; from < std::min<std::size_t>(count - 1, 2); ++from) {
    const auto& [first, last] = list.used.at(numbers[from]);
    const std::size_t period = list.used.at(numbers[from + 1]).first - first;
    if (period == 0 || last >= first + period) continue;
    std::size_t turns = 1;
    while (from + turns < count &&
           numbers[from + turns] == numbers[from] + static_cast<std::int64_t>(turns) &&
           list.used.at(numbers[from + turns]).first == first + turns * period &&
           list.used.at(numbers[from + turns]).second < first + (turns + 1) * period)
      ++turns;
    for (; turns >= 2 && turns + from + 1 >= count; --turns) {
      for (std::size_t back = 0; back < period && back <= first; ++back) {
        const std::size_t start = first - back;
        if (start + period * turns > method.body.size() || last >= start + period) continue;
        if (Roller(tree, own, method, name, list, numbers[from], start, period, turns).run()) return true;
      }
    }
  }
  return false;
}

}  // namespace

void roll_loops(Tree& tree, Own& own, Method& method) {
  std::set<std::string> tried;
  for (bool again = true; again;) {
    again = false;
    for (const auto& [name, list] : lists_of(method)) {
      if (!tried.insert(name).second) continue;
      if (roll(tree, own, method, name, list)) {
        again = true;
        break;
      }
    }
  }
}

}  // namespace onnx2nn::structure
