// Products of matrices. https://onnx.ai/onnx/operators/onnx__Gemm.html and its neighbours.
#include <algorithm>
#include <map>

#include "ops/lower.h"
#include "ops/registry.h"
#include "ops/onnx/widen.h"
#include "support/text.h"

namespace onnx2nn::ops {
namespace {

// ---------------------------------------------------------------- MatMul

/// numpy's rule: an operand of rank 1 gets an axis that the result loses.
Shape matmul_shape(const NodeContext& c, const Shape& a, const Shape& b) {
  if (!a.has_rank() || !b.has_rank()) return {};
  if (a.rank() == 0 || b.rank() == 0) c.fail("an operand is a scalar");
  Dims left = a.dims();
  Dims right = b.dims();
  if (a.rank() == 1) left.insert(left.begin(), Dim(1));
  if (b.rank() == 1) right.emplace_back(1);
  const Dim& inner = left.back();
  const Dim& other = right[right.size() - 2];
  if (inner.is_const() && other.is_const() && inner.value() != other.value())
    c.fail("shapes " + a.str() + " and " + b.str() + " do not multiply");
  Shape out = broadcast(Shape(Dims(left.begin(), left.end() - 2)),
                        Shape(Dims(right.begin(), right.end() - 2)));
  if (a.rank() > 1) out.dims().push_back(left[left.size() - 2]);
  if (b.rank() > 1) out.dims().push_back(right.back());
  return out;
}

void infer_matmul(InferContext& c) {
  c.set(0, c.dtype(0), matmul_shape(c, c.shape(0), c.shape(1)));
}
void infer_matmul_integer(InferContext& c) {
  c.set(0, DType::Int32, matmul_shape(c, c.shape(0), c.shape(1)));
}
void infer_qlinear_matmul(InferContext& c) {
  c.set(0, c.dtype(7), matmul_shape(c, c.shape(0), c.shape(3)));
}

/// Torch multiplies no matrices of wide unsigned integers; modulo 2^64 the signed product is
/// theirs.
bool needs_signed(DType t) {
  return t == DType::UInt32 || t == DType::UInt64;
}

/// A node that only adds a constant vector of `features` values to output 0; the vector's input
/// there.
std::pair<const ir::Node*, ir::Value*> following_bias(LowerContext& c, std::int64_t features,
                                                      DType dtype) {
  const ir::Node* add = c.only_user("Add");
  if (add == nullptr || add->opset < 7 || add->input_count() != 2) return {};
  ir::Value* bias = add->input(add->input(0) == c.node().output(0) ? 1 : 0);
  const auto t = c.weight_type(bias);
  if (!t || t->rank() != 1 || t->dims[0] != features || t->dtype != dtype) return {};
  return {add, bias};
}

/// The matrix that nn.Linear multiplies with.
struct LinearWeight {
  const ir::Value* value = nullptr;
  bool transpose = false;  // it is stored the other way round
  std::int64_t in = 0, out = 0;
};

/// Of a product with a weight, or with one that a node turns for it. A weight that its author had as
/// (in, out) is no nn.Linear's.
std::optional<LinearWeight> linear_weight(LowerContext& c) {
  const auto fits = [&](const std::optional<WeightType>& w) {
    return w && w->rank() == 2 && w->size() > 0 && ir::is_float(w->dtype) && c.dtype(0) == w->dtype;
  };
  if (c.rank(0) == 0U || c.input(1) == nullptr) return std::nullopt;
  // Which of two constants is the weight, the file's scope says.
  if (c.weight(0) && !c.is_layer("Linear")) return std::nullopt;
  if (const auto w = c.weight(1)) {
    if (!fits(w) || c.is_as_authored(c.input(1))) return std::nullopt;
    return LinearWeight{c.input(1), true, w->dims[0], w->dims[1]};
  }
  const ir::Node* turn = c.input(1)->producer();
  if (turn == nullptr || !turn->is("Transpose")) return std::nullopt;
  const auto w = c.weight_type(turn->input(0));
  if (!fits(w) || ops::NodeContext(*turn).attr_ints("perm").value_or(Ints{1, 0}) != Ints{1, 0})
    return std::nullopt;
  return LinearWeight{turn->input(0), false, w->dims[1], w->dims[0]};
}

/// A bias that exporters put together: one for the queries, zeros for the keys, one for the values.
bool is_without_keys(const LowerContext& c, const ir::Value* bias) {
  if (!bias->constant || c.is_as_authored(bias)) return false;
  const ir::Tensor& t = *bias->constant;
  const std::int64_t n = t.size() / 3;
  constexpr std::int64_t kMost = 1 << 16;
  if (n == 0 || n > kMost || t.size() % 3 != 0 || t.is_splat()) return false;
  for (std::int64_t i = 0; i < n; ++i)
    if (t.double_at(n + i) != 0.0) return false;
  return true;
}

/// qkv(x) with q_bias and v_bias, as BEiT and Swin v2 have them: the projection itself has no bias.
bool lower_without_keys(LowerContext& c, const LinearWeight& weight, const ir::Node& add,
                        const ir::Value* bias) {
  if (!is_without_keys(c, bias)) return false;
  const std::int64_t n = weight.out / 3;
  const auto q = c.own_part(bias, "q_bias", 0, n);
  const auto v = q ? c.own_part(bias, "v_bias", 2 * n, n) : std::nullopt;
  if (!v) return false;
  const auto y = c.module("Linear", {weight.in, weight.out}, {{"bias", false}},
                          {{.name = "weight", .value = weight.value, .transpose = weight.transpose}},
                          {c.in(0)}, "qkv");
  if (!y) return false;
  const Ex joined = aten("cat", {list({*q, aten("zeros_like", {*v}), *v})});
  c.absorb(add, aten("add.Tensor", {*y, joined}));
  return true;
}

/// A product with a constant matrix is nn.Linear, which keeps it the other way round.
bool lower_as_linear(LowerContext& c) {
  const auto weight = linear_weight(c);
  if (!weight) return false;
  const Args sizes{weight->in, weight->out};
  std::vector<ModuleParam> params{
      {.name = "weight", .value = weight->value, .transpose = weight->transpose}};
  if (const auto [add, bias] = following_bias(c, weight->out, c.dtype(0)); add != nullptr) {
    if (lower_without_keys(c, *weight, *add, bias)) return true;
    params.push_back({.name = "bias", .value = bias});
    if (const auto y = c.module("Linear", sizes, {}, params, {c.in(0)})) {
      c.absorb(*add, *y);
      return true;
    }
    params.pop_back();
  }
  const auto y = c.module("Linear", sizes, {{"bias", false}}, params, {c.in(0)});
  if (y) c.out(0, *y);
  return y.has_value();
}

void lower_matmul(LowerContext& c) {
  if (lower_as_linear(c)) return;
  const DType t = c.dtype(0);
  if (!needs_signed(t)) return c.out(0, aten("matmul", {c.in(0), c.in(1)}));
  c.out(0,
        to_dtype(aten("matmul", {to_dtype(c.in(0), DType::Int64), to_dtype(c.in(1), DType::Int64)}),
                 t));
}

void lower_matmul_integer(LowerContext& c) {
  Args args{c.in(0), c.in(1)};
  if (c.has_input(2) || c.has_input(3)) args.push_back(c.in(2));
  if (c.has_input(3)) args.push_back(c.in(3));
  c.out(0, helper("matmul_integer", args));
}

void lower_qlinear_matmul(LowerContext& c) {
  Args args;
  for (std::size_t i = 0; i < 8; ++i) args.push_back(c.in(i));
  c.out(0, helper("qlinear_matmul", args));
}

// ---------------------------------------------------------------- Gemm
// Opsets 1 and 6 broadcast C only where `broadcast` is set; from 11 on C may be absent.

struct GemmAttributes {
  double alpha;
  double beta;
  bool trans_a;
  bool trans_b;
};

GemmAttributes gemm_attributes(const NodeContext& c) {
  c.ignore_attr("broadcast");  // C broadcasts as numpy's do wherever it is allowed to
  return {c.attr_float("alpha", 1.0), c.attr_float("beta", 1.0), c.attr_int("transA", 0) != 0,
          c.attr_int("transB", 0) != 0};
}

void infer_gemm(InferContext& c) {
  const GemmAttributes g = gemm_attributes(c);
  const Shape& a = c.shape(0);
  const Shape& b = c.shape(1);
  if ((a.has_rank() && a.rank() != 2) || (b.has_rank() && b.rank() != 2))
    c.fail("A and B must be matrices");
  if (a.has_rank() && b.has_rank()) {
    const Dim& left = a[g.trans_a ? 0 : 1];
    const Dim& right = b[g.trans_b ? 1 : 0];
    if (left.is_const() && right.is_const() && left.value() != right.value())
      c.fail("shapes " + a.str() + " and " + b.str() + " do not multiply");
  }
  Dims out(2);
  if (a.has_rank()) out[0] = a[g.trans_a ? 1 : 0];
  if (b.has_rank()) out[1] = b[g.trans_b ? 0 : 1];
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

std::optional<Ex> gemm_as_linear(LowerContext& c, const GemmAttributes& g) {
  const auto weight = c.weight(1);
  const bool plain =
      g.alpha == 1.0 && (g.beta == 1.0 || !c.has_input(2)) && !g.trans_a && !c.weight(0);
  if (!plain || !weight || weight->rank() != 2 || weight->size() == 0 ||
      !ir::is_float(weight->dtype) || (!g.trans_b && c.is_as_authored(c.input(1))))
    return std::nullopt;
  const std::int64_t in = weight->dims[g.trans_b ? 1 : 0];
  const std::int64_t out = weight->dims[g.trans_b ? 0 : 1];
  std::vector<ModuleParam> params{{.name = "weight", .value = c.input(1), .transpose = !g.trans_b}};
  Kwargs kw;
  if (c.has_input(2)) {
    const auto bias = c.weight(2);
    // A row of its own rank is as good as a vector.
    const bool vector = bias && bias->size() == out && bias->dtype == weight->dtype &&
                        (bias->rank() == 1 || (bias->rank() == 2 && bias->dims[0] == 1));
    if (!vector) return std::nullopt;
    params.push_back({.name = "bias", .value = c.input(2), .shape = {out}});
  } else {
    kw.emplace_back("bias", false);
  }
  return c.module("Linear", {in, out}, kw, params, {c.in(0)});
}

/// A factor as Python writes it for tensors of this dtype.
Ex factor(double v, DType t) {
  return ir::is_integer(t) ? Ex(static_cast<std::int64_t>(v)) : Ex(v);
}

/// One value for each row of the weight, as F.linear takes its bias.
bool is_row_of(const Shape& bias, const Shape& weight) {
  return bias.has_rank() && bias.rank() == 1 && weight.has_rank() && weight.rank() == 2 &&
         bias[0].is_const() && bias[0] == weight[0];
}

void lower_gemm(LowerContext& c) {
  const GemmAttributes g = gemm_attributes(c);
  if (const auto y = gemm_as_linear(c, g)) return c.out(0, *y);
  const DType t = c.dtype(0);
  const bool scaled = g.alpha != 1.0 || (c.has_input(2) && g.beta != 1.0);
  if (!scaled && !g.trans_a && g.trans_b && ir::is_float(t) &&
      (!c.has_input(2) || is_row_of(c.shape(2), c.shape(1))))
    return c.out(0, aten("linear", {c.in(0), c.in(1), c.in(2)}));
  const auto operand = [&](std::size_t i) {
    return needs_signed(t) ? to_dtype(c.in(i), DType::Int64) : c.in(i);
  };
  const Ex a = g.trans_a ? aten("t", {operand(0)}) : operand(0);
  const Ex b = g.trans_b ? aten("t", {operand(1)}) : operand(1);
  Ex y;
  if (c.has_input(2) && g.beta != 0.0) {
    y = aten("addmm", {operand(2), a, b, factor(g.beta, t), factor(g.alpha, t)});
  } else {
    y = aten("matmul", {a, b});
    if (g.alpha != 1.0) y = aten("mul.Tensor", {y, factor(g.alpha, t)});
  }
  c.out(0, needs_signed(t) ? to_dtype(y, t) : y);
}

// ---------------------------------------------------------------- Einsum

struct Equation {
  std::vector<std::string> terms;
  std::string result;
};

Equation parse_equation(const NodeContext& c) {
  std::string text;
  for (const char ch : c.attr_string("equation", ""))
    if (ch != ' ') text += ch;
  Equation e;
  const std::size_t arrow = text.find("->");
  const std::string left = text.substr(0, arrow);
  std::string term;
  for (const char ch : left) {
    if (ch == ',') {
      e.terms.push_back(std::exchange(term, {}));
    } else if (is_letter(ch) || ch == '.') {
      term += ch;
    } else {
      c.fail("the equation has a character that is no letter");
    }
  }
  e.terms.push_back(term);
  if (e.terms.size() != c.input_count())
    c.fail("the equation has another number of terms than there are inputs");
  if (arrow != std::string::npos) {
    e.result = text.substr(arrow + 2);
    return e;
  }
  // Without an arrow: the ellipsis, then every letter that is there once, in the order of the
  // alphabet.
  std::map<char, int> counts;
  for (const char ch : left) ++counts[ch];
  if (counts.count('.') != 0) e.result = "...";
  for (const auto& [letter, count] : counts)
    if (count == 1 && is_letter(letter)) e.result += letter;
  return e;
}

void infer_einsum(InferContext& c) {
  const Equation e = parse_equation(c);
  std::map<char, Dim> sizes;
  Shape rest{Dims{}};
  for (std::size_t i = 0; i < e.terms.size(); ++i) {
    const Shape& s = c.shape(i);
    if (!s.has_rank()) return c.set(0, c.dtype(0));
    const std::string& term = e.terms[i];
    const std::size_t dots = term.find("...");
    const std::size_t letters = term.size() - (dots == std::string::npos ? 0 : 3);
    if (letters > s.rank() || (dots == std::string::npos && letters != s.rank()))
      c.fail("a term of the equation does not fit its input's rank");
    std::size_t axis = 0;
    for (std::size_t k = 0; k < term.size(); ++k) {
      if (k == dots) {
        const std::size_t count = s.rank() - letters;
        const auto first = s.dims().begin() + static_cast<std::ptrdiff_t>(axis);
        rest = broadcast(rest, Shape(Dims(first, first + static_cast<std::ptrdiff_t>(count))));
        axis += count;
        k += 2;
        continue;
      }
      if (axis >= s.rank()) c.fail("a term of the equation does not fit its input's rank");
      const auto [it, fresh] = sizes.emplace(term[k], s[axis]);
      if (!fresh) it->second = broadcast(it->second, s[axis]);
      ++axis;
    }
  }
  Dims out;
  for (std::size_t k = 0; k < e.result.size(); ++k) {
    if (e.result.compare(k, 3, "...") == 0) {
      out.insert(out.end(), rest.dims().begin(), rest.dims().end());
      k += 2;
      continue;
    }
    const auto it = sizes.find(e.result[k]);
    if (it == sizes.end()) c.fail("the equation's result has a letter of no term");
    out.push_back(it->second);
  }
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void lower_einsum(LowerContext& c) {
  const Equation e = parse_equation(c);
  Args operands;
  // torch multiplies only some integers, and sums narrow ones as int64.
  const DType t = c.dtype(0);
  const bool widened = ir::is_integer(t) && t != DType::Int64;
  for (std::size_t i = 0; i < c.input_count(); ++i)
    operands.push_back(widened ? to_dtype(c.in(i), DType::Int64) : c.in(i));
  const Ex y = aten("einsum", {join(e.terms, ",") + "->" + e.result, list(operands)});
  c.out(0, widened ? to_dtype(y, t) : y);
}

// ---------------------------------------------------------------- Det

void infer_det(InferContext& c) {
  const Shape& x = c.shape(0);
  if (!x.has_rank()) return c.set(0, c.dtype(0));
  if (x.rank() < 2) c.fail("the input is no matrix");
  c.set(0, c.dtype(0), Shape(Dims(x.dims().begin(), x.dims().end() - 2)));
}

void lower_det(LowerContext& c) {
  const DType t = c.dtype(0);
  // torch factorises no halves.
  if (t == DType::Float16 || t == DType::BFloat16)
    return c.out(0, to_dtype(aten("linalg_det", {to_dtype(c.in(0), DType::Float32)}), t));
  c.out(0, aten("linalg_det", {c.in(0)}));
}

constexpr OpDef kLinearOps[] = {
    {.type = "MatMul", .changed_at = {1}, .infer = infer_matmul, .lower = lower_matmul},
    {.type = "Gemm", .changed_at = {1, 6, 7, 11}, .infer = infer_gemm, .lower = lower_gemm},
    {.type = "Einsum", .changed_at = {12}, .infer = infer_einsum, .lower = lower_einsum},
    {.type = "MatMulInteger",
     .changed_at = {10},
     .infer = infer_matmul_integer,
     .lower = lower_matmul_integer},
    {.type = "QLinearMatMul",
     .changed_at = {10, 21},
     .infer = infer_qlinear_matmul,
     .lower = lower_qlinear_matmul},
    {.type = "Det", .changed_at = {11}, .infer = infer_det, .lower = lower_det},
};

}  // namespace

std::span<const OpDef> linear_ops() {
  return kLinearOps;
}

}  // namespace onnx2nn::ops
