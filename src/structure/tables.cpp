#include "structure/tables.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::aten;
using torch::Block;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::Kwargs;
using torch::list;
using torch::Scope;
using torch::Stmt;
using torch::VarPtr;
using Ints = std::vector<std::int64_t>;

constexpr std::int64_t kMostElements = 1 << 22;
// Differences and products of smaller numbers do not overflow.
constexpr std::int64_t kLargest = std::int64_t{1} << 30;
// Two numbers, or three that just happen to be in line, are data.
constexpr std::int64_t kShortest = 4;
// What masks add is -inf, or at most what float16 has too.
constexpr double kLowest = -65504.0;

bool is_whole(ir::DType t) {
  using D = ir::DType;
  return t == D::Bool || t == D::Int64 || t == D::Int32 || t == D::Int16 || t == D::Int8 ||
         t == D::UInt8;
}

/// The sizes of the two axes along which a table has several elements, or of the one.
Ints long_axes(const Ints& dims) {
  Ints out;
  for (const std::int64_t d : dims)
    if (d != 1) out.push_back(d);
  return out;
}

/// Which diagonals of a matrix hold true: all from `low` to `high`, and no others.
struct Band {
  std::int64_t low = 0;
  std::int64_t high = 0;
};

template <typename IsTrue>
std::optional<Band> band_of(std::int64_t rows, std::int64_t columns, IsTrue&& is_true) {
  const auto on = [&](std::int64_t d) {  // the first element of a diagonal
    return is_true(d < 0 ? -d * columns : d);
  };
  std::optional<Band> band;
  for (std::int64_t d = 1 - rows; d < columns; ++d) {
    if (!on(d)) continue;
    if (band && band->high != d - 1) return std::nullopt;
    if (!band) band = Band{d, d};
    band->high = d;
  }
  if (!band) return std::nullopt;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j)
      if (is_true(i * columns + j) != (j - i >= band->low && j - i <= band->high))
        return std::nullopt;
  return band;
}

/// The matrix with all but the band zero.
Ex cut(Ex ones, const Band& band, std::int64_t rows, std::int64_t columns) {
  const auto cut_at = [&](const char* f, std::int64_t diagonal) {
    ones = diagonal == 0 ? aten(f, {ones}) : aten(f, {ones, diagonal});
  };
  if (band.high < columns - 1) cut_at("tril", band.high);
  if (band.low > 1 - rows) cut_at("triu", band.low);
  return ones;
}

/// The tensor, whose long axes are in place, with these dimensions.
Ex with_dims(Ex x, const Ints& from, const Ints& dims) {
  if (from == dims) return x;
  const std::size_t more = dims.size() - from.size();
  const bool trailing = std::equal(from.begin(), from.end(), dims.begin());
  const bool leading = std::equal(from.begin(), from.end(), dims.begin() + static_cast<std::ptrdiff_t>(more));
  if (!leading && !trailing) return aten("reshape", {x, Ex(dims)});
  for (std::size_t k = 0; k < more; ++k)
    x = aten("unsqueeze", {x, static_cast<std::int64_t>(leading ? k : from.size() + k)});
  return x;
}

class Speller {
 public:
  /// dims: those of the table, or fewer where what it meets fills in leading ones.
  Speller(const ir::Tensor& table, Ints dims, Ex device)
      : table_(table), dims_(std::move(dims)), axes_(long_axes(dims_)), device_(std::move(device)) {}

  std::optional<Ex> run() {
    v_ = table_.to_ints();
    if (std::any_of(v_.begin(), v_.end(), [](auto n) { return n > kLargest || n < -kLargest; }))
      return std::nullopt;
    if (table_.is_splat()) return splat();
    if (auto band = banded()) return band;
    if (table_.dtype() == ir::DType::Bool) return std::nullopt;
    if (table_.size() < kShortest) return std::nullopt;
    if (auto line = counted()) return line;
    return axes_.size() == 2 ? of_two() : std::nullopt;
  }

 private:
  Kwargs made_on(bool inferred) const {
    Kwargs kw;
    if (!inferred) kw.emplace_back("dtype", Ex(table_.dtype()));
    kw.emplace_back("device", device_);
    return kw;
  }
  bool is_long() const { return table_.dtype() == ir::DType::Int64; }
  Ex value(std::int64_t v) const {
    return table_.dtype() == ir::DType::Bool ? Ex(v != 0) : Ex(v);
  }

  Ex splat() const {
    const bool inferred = is_long() || table_.dtype() == ir::DType::Bool;
    if (dims_.empty()) return aten("tensor", {value(v_[0])}, made_on(inferred));
    if (v_[0] == 0) return aten("zeros", {Ex(dims_)}, made_on(false));
    if (v_[0] == 1) return aten("ones", {Ex(dims_)}, made_on(false));
    return aten("full", {Ex(dims_), value(v_[0])}, made_on(inferred));
  }

  std::optional<Ex> banded() const {
    if (axes_.size() != 2) return std::nullopt;
    if (std::any_of(v_.begin(), v_.end(), [](auto n) { return n != 0 && n != 1; }))
      return std::nullopt;
    const std::int64_t rows = axes_[0];
    const std::int64_t columns = axes_[1];
    const auto band = band_of(rows, columns, [&](auto i) { return v_[static_cast<std::size_t>(i)] != 0; });
    if (!band) return std::nullopt;
    if (band->low == 0 && band->high == 0) {
      const Ex eye = rows == columns ? aten("eye", {rows}, made_on(false))
                                     : aten("eye.m", {rows, columns}, made_on(false));
      return with_dims(eye, axes_, dims_);
    }
    const Ex ones = aten("ones", {Ex(axes_)}, made_on(false));
    return with_dims(cut(ones, *band, rows, columns), axes_, dims_);
  }

  Ex arange(std::int64_t start, std::int64_t step, std::int64_t count) const {
    const std::int64_t end = start + step * count;
    if (step != 1) return aten("arange.start_step", {start, end, step}, made_on(is_long()));
    if (start != 0) return aten("arange.start", {start, end}, made_on(is_long()));
    return aten("arange", {end}, made_on(is_long()));
  }

  /// start, start + step, ... in the order of the elements.
  std::optional<Ex> counted() const {
    const std::int64_t step = v_[1] - v_[0];
    for (std::size_t i = 1; i < v_.size(); ++i)
      if (v_[i] - v_[i - 1] != step) return std::nullopt;
    const auto count = static_cast<std::int64_t>(v_.size());
    const Ex line = arange(v_[0], step, count);
    if (axes_.size() == 1) return with_dims(line, axes_, dims_);
    return aten("reshape", {line, Ex(dims_)});
  }

  /// A sum or difference of a number by row and one by column, or its absolute value.
  std::optional<Ex> of_two() const {
    const std::int64_t rows = axes_[0];
    const std::int64_t columns = axes_[1];
    const auto at = [&](std::int64_t i, std::int64_t j) { return v_[static_cast<std::size_t>(i * columns + j)]; };
    const auto holds = [&](auto&& expected) {
      for (std::int64_t i = 0; i < rows; ++i)
        for (std::int64_t j = 0; j < columns; ++j)
          if (at(i, j) != expected(i, j)) return false;
      return true;
    };
    const auto by_row = [](Ex x) { return aten("unsqueeze", {std::move(x), 1}); };
    const std::int64_t start = at(0, 0);
    const std::int64_t down = at(1, 0) - start;
    const std::int64_t right = at(0, 1) - start;
    Ex out;
    if (holds([&](auto i, auto j) { return start + down * i + right * j; })) {
      if (down == 0) {
        out = aten("expand", {arange(start, right, columns), Ex(Ints{rows, -1})});
      } else if (right == 0) {
        out = aten("expand", {by_row(arange(start, down, rows)), Ex(Ints{-1, columns})});
      } else if (right < 0) {
        out = aten("sub.Tensor", {by_row(arange(start, down, rows)), arange(0, -right, columns)});
      } else if (down < 0) {
        out = aten("sub.Tensor", {arange(start, right, columns), by_row(arange(0, -down, rows))});
      } else {
        out = aten("add.Tensor", {by_row(arange(start, down, rows)), arange(0, right, columns)});
      }
    } else if (holds([](auto i, auto j) { return i < j ? j - i : i - j; })) {
      out = aten("abs", {aten("sub.Tensor", {by_row(arange(0, 1, rows)), arange(0, 1, columns)})});
    } else {
      return std::nullopt;
    }
    return with_dims(out, axes_, dims_);
  }

  const ir::Tensor& table_;
  Ints dims_;
  Ints axes_;
  Ex device_;
  Ints v_;
};

/// Zero, and something low on one side of a diagonal: what is added to scores, as a tensor like them.
std::optional<Ex> float_mask(const ir::Tensor& table, const Ints& dims, const Ex& like) {
  const Ints axes = long_axes(dims);
  if (axes.size() != 2) return std::nullopt;
  const std::vector<double> v = table.to_doubles();
  const double low = std::min(v.front(), std::min(v.back(), v[static_cast<std::size_t>(axes[1] - 1)]));
  if (!(low < 0) || (low < kLowest && !std::isinf(low))) return std::nullopt;
  const auto is_zero = [](double x) { return x == 0 && !std::signbit(x); };
  if (std::any_of(v.begin(), v.end(), [&](double x) { return x != low && !is_zero(x); }))
    return std::nullopt;
  const auto band = band_of(axes[0], axes[1], [&](auto i) { return v[static_cast<std::size_t>(i)] == low; });
  if (!band || (band->low > 1 - axes[0] && band->high < axes[1] - 1)) return std::nullopt;
  const Ex full = aten("new_full", {like, Ex(axes), Ex(low)});
  return with_dims(cut(full, *band, axes[0], axes[1]), axes, dims);
}

/// Statements that read a table, and what they share.
struct Group {
  Scope common;
  std::vector<std::size_t> statements;  // in order
  VarPtr var;
};

/// What the program does with one table.
struct Table {
  torch::ParamPtr param;
  std::vector<std::pair<std::size_t, Scope>> places;  // the statements that read it
  bool stays = false;       // somebody wants it as it is
  bool is_filled = true;    // each reader has an operand of as many axes beside it
  VarPtr like;              // an operand of the same dtype, of the only reader
  std::size_t readers = 0;
};

/// Layers of a list share one table; other modules that read it each make their own, as none of them needs to
/// hand it on.
std::vector<Group> groups_of(const Table& t) {
  Scope common = t.places.front().second;
  for (const auto& [_, scope] : t.places) common = torch::common_scope(common, scope);
  std::map<std::string, Group> groups;
  for (const auto& [at, scope] : t.places) {
    std::string key;
    if (scope.size() > common.size()) {
      const auto path = torch::components_of({scope[common.size()]});
      if (!path.empty() && !is_number(path.back())) key = scope[common.size()].path;
    }
    const auto [it, is_new] = groups.emplace(key, Group{scope, {}, nullptr});
    if (!is_new) it->second.common = torch::common_scope(it->second.common, scope);
    it->second.statements.push_back(at);
  }
  std::vector<Group> out;
  for (auto& [_, g] : groups) out.push_back(std::move(g));
  std::sort(out.begin(), out.end(),
            [](const Group& a, const Group& b) { return a.statements < b.statements; });
  return out;
}

/// The name of the table where that is what it holds, rather than how it was made.
std::string role_of(const torch::Param& p) {
  const std::string& name = p.path.back();
  const bool says = name == "index" || name.ends_with("mask") || name.ends_with("_ids");
  return says ? name : "";
}

/// Operators that bring their operands to one shape.
bool broadcasts(const Expr& e) {
  if (e.kind != ExprKind::Aten) return false;
  static constexpr std::array<std::string_view, 14> kNames = {
      "add", "sub", "mul", "bitwise_and", "bitwise_or", "logical_and", "logical_or",
      "where", "eq", "ne", "lt", "le", "gt", "ge"};
  return std::find(kNames.begin(), kNames.end(), torch::function_of(e)) != kNames.end();
}

class Spelling {
 public:
  explicit Spelling(torch::Program& program) : program_(program) {}

  Roles run() {
    for (const auto& p : program_.params) {
      const bool fits = p->tensor && p->pieces.empty() && !p->transpose && !p->quantized &&
                        !p->trainable && !p->persistent && !p->path.empty() &&
                        p->tensor->dtype() == p->dtype && p->tensor->dims() == p->shape &&
                        p->tensor->size() > 0 && p->tensor->size() <= kMostElements &&
                        (is_whole(p->dtype) || ir::info(p->dtype).kind == 'f');
      if (fits) tables_[p.get()].param = p;
    }
    if (tables_.empty()) return {};
    for (const auto& m : program_.modules)
      for (const auto& [_, p] : m->params) tables_.erase(p.get());
    for (const torch::Tie& t : program_.ties) tables_.erase(t.param.get());
    for (const auto& p : program_.inputs) {
      next_ = std::max(next_, p.var->id + 1);
      if (!input_ && p.kind == "tensor" && p.dtype != "string") input_ = p.var;
    }
    for (std::size_t i = 0; i < program_.forward.size(); ++i) read(program_.forward[i], i);
    replace();
    return std::move(roles_);
  }

 private:
  void read(const Stmt& s, std::size_t i) {
    each_var(s, [&](const VarPtr& v, bool) { next_ = std::max(next_, v->id + 1); });
    const Scope scope = s.scope ? *s.scope : Scope{};
    note_values(s, i, scope);
    each_expr(s, [&](const Expr& e) {
      for (const auto& a : e.args)
        if (is_table(*a)) note(*a, &e, i, scope);
      for (const auto& [_, a] : e.keywords)
        if (is_table(*a)) note(*a, &e, i, scope);
    });
  }

  /// A table that is itself what a statement gives, inside of branches and loops too.
  void note_values(const Stmt& s, std::size_t i, const Scope& scope) {
    if (is_table(*s.value)) note(*s.value, nullptr, i, scope);
    for (const Block* block : {&s.body, &s.orelse})
      for (const Stmt& inner : *block) note_values(inner, i, scope);
  }

  bool is_table(const Expr& e) const {
    return e.kind == ExprKind::Param && tables_.count(e.param.get()) != 0;
  }

  void note(const Expr& e, const Expr* reader, std::size_t i, const Scope& scope) {
    Table& t = tables_.at(e.param.get());
    ++t.readers;
    if (t.places.empty() || t.places.back().first != i) t.places.emplace_back(i, scope);
    const bool known = reader != nullptr && (reader->kind == ExprKind::Aten || reader->kind == ExprKind::List ||
                                             reader->kind == ExprKind::Module);
    t.stays = t.stays || !known;
    bool filled = false;
    if (known && broadcasts(*reader)) {
      for (const auto& a : reader->args) {
        if (a->kind != ExprKind::Var || a->var->type != "Tensor") continue;
        filled = filled || (a->var->has_dims && a->var->dims.size() >= t.param->shape.size());
        const bool condition = torch::function_of(*reader) == "where" && a == reader->args[0];
        if (!condition) t.like = a->var;
      }
    }
    if (known && torch::function_of(*reader) == "scaled_dot_product_attention" &&
        reader->args[0]->kind == ExprKind::Var)
      t.like = reader->args[0]->var;
    t.is_filled = t.is_filled && filled;
  }

  std::optional<Ex> spelt(const Table& t) const {
    if (t.readers == 0 || t.stays) return std::nullopt;
    Ints dims = t.param->shape;
    // Leading ones that broadcasting puts there need not be said.
    while (t.is_filled && dims.size() > 1 && dims.front() == 1) dims.erase(dims.begin());
    if (!is_whole(t.param->dtype)) {
      const bool plain = t.readers == 1 && program_.forward[t.places[0].first].kind == Stmt::Kind::Assign;
      return plain && t.like ? float_mask(*t.param->tensor, dims, Ex(t.like)) : std::nullopt;
    }
    if (!input_) return std::nullopt;
    return Speller(*t.param->tensor, dims, torch::op(".device", {Ex(input_)})).run();
  }

  static VarPtr variable(const torch::Param& p, int id) {
    auto v = std::make_shared<torch::Var>();
    v->id = id;
    v->hint = p.path.back();
    v->type = "Tensor";
    v->has_dims = true;
    for (const std::int64_t d : p.shape) v->dims.push_back(std::to_string(d));
    return v;
  }

  void replace() {
    std::unordered_map<std::size_t, std::vector<Stmt>> made;  // by the statement that comes next
    std::unordered_map<const torch::Param*, std::vector<Group>> gone;
    for (const auto& p : program_.params) {  // in an order that does not change
      const auto it = tables_.find(p.get());
      if (it == tables_.end()) continue;
      const auto value = spelt(it->second);
      if (!value) continue;
      std::vector<Group> groups = groups_of(it->second);
      for (Group& g : groups) {
        g.var = variable(*p, next_++);
        if (std::string role = role_of(*p); !role.empty()) roles_.emplace(g.var->id, std::move(role));
        Stmt s;
        s.targets = {g.var};
        s.value = *value;
        s.scope = std::make_shared<const Scope>(g.common);
        made[g.statements[0]].push_back(std::move(s));
      }
      gone.emplace(p.get(), std::move(groups));
    }
    if (gone.empty()) return;
    Block out;
    for (std::size_t i = 0; i < program_.forward.size(); ++i) {
      if (const auto it = made.find(i); it != made.end())
        for (Stmt& s : it->second) out.push_back(std::move(s));
      Block one;
      one.push_back(std::move(program_.forward[i]));
      rewrite(one, [&](const ExprPtr& e) -> ExprPtr {
        if (e->kind != ExprKind::Param) return nullptr;
        const auto it = gone.find(e->param.get());
        if (it == gone.end()) return nullptr;
        const auto of = std::find_if(it->second.begin(), it->second.end(), [&](const Group& g) {
          return std::binary_search(g.statements.begin(), g.statements.end(), i);
        });
        return Ex(of->var).ptr();
      });
      out.push_back(std::move(one[0]));
    }
    program_.forward = std::move(out);
    std::erase_if(program_.params, [&](const auto& p) { return gone.count(p.get()) != 0; });
  }

  torch::Program& program_;
  std::unordered_map<const torch::Param*, Table> tables_;
  Roles roles_;
  VarPtr input_;
  int next_ = 0;
};

}  // namespace

Roles spell_tables(torch::Program& program) { return Spelling(program).run(); }

}  // namespace onnx2nn::structure
