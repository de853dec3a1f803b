#include "structure/roles.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "structure/sequential.h"
#include "structure/walk.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Expr;
using torch::ExprKind;
using torch::Stmt;

bool is_norm(std::string_view type) {
  return type.find("Norm") != std::string_view::npos;
}

/// The sizes of a convolution's kernel as one text: "3x3".
std::string kernel_of(const torch::Module& module) {
  std::string out;
  for (const auto& [key, value] : module.keywords) {
    if (key != "kernel_size") continue;
    if (value.is_int()) return std::to_string(value->integer);
    if (const auto same = torch::only_number(*value)) return std::to_string(same->integer);
  }
  if (module.args.size() > 2) {
    const torch::Ex& size = module.args[2];
    if (size.is_int()) return std::to_string(size->integer);
    if (const auto same = torch::only_number(*size)) return std::to_string(same->integer);
  }
  return "";
}

struct Parts {
  std::vector<std::string> kernels;  // of convolutions, in order
  int convolutions = 0, linears = 0, norms = 0, attentions = 0, products = 0, sums = 0, lookups = 0;
  int recurrent = 0, layers = 0, joins = 0, others = 0;
  bool up = false;
};

Parts parts_of(const std::vector<const Stmt*>& statements) {
  Parts out;
  for (const Stmt* s : statements) {
    each_expr(*s, [&](const Expr& e) {
      if (e.kind == ExprKind::Module) {
        const std::string& type = e.module->type;
        ++out.layers;
        out.convolutions += type.starts_with("Conv");
        if (type.starts_with("Conv")) out.kernels.push_back(kernel_of(*e.module));
        out.up = out.up || type.starts_with("ConvTranspose");
        out.linears += type == "Linear";
        out.norms += is_norm(type);
        out.lookups += type == "Embedding";
        out.recurrent += type == "LSTM" || type == "GRU" || type == "RNN";
      } else if (e.kind == ExprKind::Aten) {
        const std::string_view f = torch::function_of(e);
        out.attentions += f == "scaled_dot_product_attention";
        out.products += f == "matmul" || f == "bmm";
        out.sums += f == "add";
        out.joins += f == "cat";
        out.lookups += f == "embedding";
        ++out.others;
      } else if (e.kind == ExprKind::Function) {
        out.up = out.up || e.text == "F.interpolate";
      }
    });
  }
  return out;
}

}  // namespace

Role role(const std::vector<const Stmt*>& statements, bool has_lists) {
  if (has_lists) return {"stage", "stages", "Stage"};
  const Parts p = parts_of(statements);
  if ((p.attentions > 0 || p.products > 1) && p.linears > 2 && p.norms > 0)
    return {"layer", "layers", "TransformerLayer"};
  if (p.sums > 0 && p.linears == 0) {
    const std::size_t n = p.kernels.size();
    const auto is = [&](std::initializer_list<std::string_view> kernels) {
      return n >= kernels.size() &&
             std::equal(kernels.begin(), kernels.end(), p.kernels.begin());
    };
    if ((n == 3 || n == 4) && is({"1", "3", "1"})) return {"block", "blocks", "Bottleneck"};
    if ((n == 2 || n == 3) && is({"3", "3"})) return {"block", "blocks", "BasicBlock"};
  }
  if (p.convolutions == 1 && p.linears == 0 && p.sums == 0 && p.joins == 0 && statements.size() <= 5) {
    if (p.norms == 1) return {"conv", "convs", "ConvNormAct"};
    if (p.layers == 1) return {"conv", "convs", "ConvAct"};
  }
  if (p.recurrent > 0) return {"rnn", "rnns", "Recurrent"};
  return {"block", "blocks", "Block"};
}

std::string layer_stem(const torch::Module& module) {
  const std::string& type = module.type;
  if (type.starts_with("ConvTranspose")) return "up";
  if (type.starts_with("Conv")) return "conv";
  if (type.starts_with("BatchNorm")) return "bn";
  if (is_norm(type)) return "norm";
  return to_lower(type);
}

std::string weight_stem(const Stmt& statement, const torch::Param& param) {
  std::string out;
  each_expr(statement, [&](const Expr& e) {
    if (e.kind != ExprKind::Aten || !out.empty()) return;
    const bool reads = std::any_of(e.args.begin(), e.args.end(), [&](const auto& a) {
      return a->kind == ExprKind::Param && a->param.get() == &param;
    });
    if (!reads) return;
    const std::string_view f = torch::function_of(e);
    if (f == "add" || f == "sub") out = "bias";
    if (f == "mul" || f == "div" || f == "prelu") out = "scale";
    if (f == "matmul" || f == "bmm" || f == "linear") out = "weight";
    if (f == "embedding" || f == "index_select") out = "table";
    if (f == "where" || f == "masked_fill") out = "mask";
  });
  if (out.empty()) out = param.trainable ? "weight" : "constant";
  return out;
}

bool is_step(const Stmt& s) {
  if (s.kind != Stmt::Kind::Assign || s.targets.size() != 1) return false;
  const Expr& e = *s.value;
  if (e.args.empty() || e.args[0]->kind != ExprKind::Var) return false;
  if (e.kind == ExprKind::Module) return e.args.size() == 1;
  return torch_module(e, e.args[0]->var->id) != nullptr;
}

}  // namespace onnx2nn::structure
