#include "structure/shapes.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Block;
using torch::Expr;
using torch::ExprKind;
using torch::Stmt;

// As much as a person counts at a glance.
constexpr std::size_t kLongestSize = 20;
constexpr std::size_t kMostAxes = 6;

void forget(const torch::Stmt& s) {
  for (const auto& v : s.targets)
    for (std::string& d : v->dims) d = "?";
  for (const Block* b : {&s.body, &s.orelse})
    for (const Stmt& inner : *b) forget(inner);
}

/// Functions after which a reader asks what the axes are now.
bool moves_axes(std::string_view function) {
  static constexpr std::array<std::string_view, 23> kNames = {
      "view",   "reshape", "flatten", "unflatten", "permute",           "transpose",
      "movedim", "unfold", "expand",  "repeat",    "stack",             "cat",
      "chunk",  "split",   "unbind",  "select",    "split_with_sizes",  "einsum",
      "im2col", "col2im",  "pixel_shuffle", "pixel_unshuffle", "upsample_nearest2d"};
  return std::find(kNames.begin(), kNames.end(), function) != kNames.end();
}

/// A mean or maximum that leaves axes out.
bool drops_axes(const Expr& e) {
  const auto f = torch::function_of(e);
  if (f != "mean" && f != "amax" && f != "sum") return false;
  return e.args.size() > 1 && (e.args.size() < 3 || e.args[2]->kind != ExprKind::Bool || e.args[2]->integer == 0);
}

/// Whether the expression is such a call, or a layer or another function of one.
bool changes_shape(const Expr& e) {
  const Expr* x = &e;
  for (;;) {
    if (x->kind == ExprKind::Op && x->text == "call") {
      if (x->args.size() != 2) return false;
      x = x->args[1].get();
    } else if (x->kind == ExprKind::Function) {
      if (x->text == "F.interpolate") return true;
      if (x->args.empty()) return false;
      x = x->args[0].get();
    } else if (x->kind == ExprKind::Aten) {
      if (moves_axes(torch::function_of(*x)) || drops_axes(*x)) return true;
      const bool one = std::count_if(x->args.begin(), x->args.end(), [](const auto& a) {
                         return a->kind == ExprKind::Var || a->kind == ExprKind::Aten || a->kind == ExprKind::Op;
                       }) == 1;
      if (!one) return false;
      x = x->args[0].get();
    } else {
      return false;
    }
  }
}

/// A number, or sums and products of names: text of the model that can be nothing else in a comment.
bool is_plain(std::string_view size) {
  // unk__59 is tf2onnx's name for a size that has none.
  if (size.empty() || size.size() > kLongestSize || size.find("unk__") != std::string_view::npos) return false;
  return std::all_of(size.begin(), size.end(), [](char c) {
    return is_alphanumeric(c) || c == '_' || c == '+' || c == '-' || c == '*';
  });
}

/// `12 * batch` of 12*batch.
std::string spaced(const std::string& size) {
  std::string out;
  for (const char c : size) {
    const bool sign = !out.empty() && (c == '+' || c == '-' || c == '*');
    out += sign ? std::string(" ") + c + " " : std::string(1, c);
  }
  return out;
}

/// Whether the call itself gives all sizes; for a -1 in front, only a name is left to say.
bool says_sizes(const Expr& e, const std::vector<std::string>& dims) {
  const auto f = torch::function_of(e);
  if (e.kind != ExprKind::Aten || (f != "reshape" && f != "view") || e.args.size() != 2) return false;
  const auto& sizes = e.args[1]->args;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const bool open = sizes[i]->kind == ExprKind::Int && sizes[i]->integer == -1;
    if (open && (i > 0 || dims[0].find_first_of("+-*") != std::string::npos || is_number(dims[0])))
      return false;
  }
  return true;
}

void count_writes(const Block& block, std::unordered_map<int, int>& writes) {
  for (const Stmt& s : block) {
    for (const auto& v : s.targets) ++writes[v->id];
    count_writes(s.body, writes);
    count_writes(s.orelse, writes);
  }
}

/// The sizes of all that the statement sets, which are the same; "" where they are not, or not known.
std::string sizes_of(const Stmt& s) {
  const torch::Var& first = *s.targets[0];
  for (const auto& v : s.targets)
    if (v->type != "Tensor" || !v->has_dims || v->dims != first.dims) return "";
  if (first.dims.empty() || first.dims.size() > kMostAxes) return "";
  if (!std::all_of(first.dims.begin(), first.dims.end(), is_plain)) return "";
  if (says_sizes(*s.value, first.dims)) return "";
  std::vector<std::string> sizes;
  for (const std::string& d : first.dims) sizes.push_back(spaced(d));
  std::string out = "(" + join(sizes, ", ") + (sizes.size() == 1 ? ",)" : ")");
  return s.targets.size() > 1 ? "each " + out : out;
}

}  // namespace

void keep_common_sizes(Block& ours, const Block& theirs, const torch::Var* extra) {
  std::size_t k = 0;
  for (Stmt& s : ours) {
    if (extra != nullptr && s.targets.size() == 1 && s.targets[0].get() == extra) {
      forget(s);
      continue;
    }
    const Stmt* other = k < theirs.size() ? &theirs[k++] : nullptr;
    if (other == nullptr || other->kind != s.kind || other->targets.size() != s.targets.size()) {
      forget(s);
      continue;
    }
    for (std::size_t t = 0; t < s.targets.size(); ++t) {
      auto& dims = s.targets[t]->dims;
      const auto& others = other->targets[t]->dims;
      for (std::size_t d = 0; d < dims.size(); ++d)
        if (others.size() != dims.size() || dims[d] != others[d]) dims[d] = "?";
    }
    keep_common_sizes(s.body, other->body, extra);
    keep_common_sizes(s.orelse, other->orelse, extra);
  }
}

std::unordered_map<const torch::Var*, std::string> shape_comments(const torch::Function& function) {
  std::unordered_map<const torch::Var*, std::string> out;
  // What a loop sets again may have another size then.
  std::unordered_map<int, int> writes;
  count_writes(function.body, writes);
  std::string said[2];  // last
  for (const Stmt& s : function.body) {
    if (s.kind != Stmt::Kind::Assign || s.targets.empty() || !changes_shape(*s.value)) continue;
    const bool again = std::any_of(s.targets.begin(), s.targets.end(),
                                   [&](const auto& v) { return writes[v->id] > 1; });
    if (again) continue;
    std::string sizes = sizes_of(s);
    if (sizes.empty() || sizes == said[0] || sizes == said[1]) continue;
    out.emplace(s.targets[0].get(), sizes);
    said[1] = std::exchange(said[0], std::move(sizes));
  }
  return out;
}

}  // namespace onnx2nn::structure
