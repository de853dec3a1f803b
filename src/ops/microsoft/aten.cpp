// org.pytorch.aten: calls of torch's own functions, which exporters write where ONNX has no
// operator.
#include "ops/microsoft/microsoft.h"
#include "ops/registry.h"
#include "torch/schema.h"

namespace onnx2nn::ops {
namespace {

/// The rows of a table: nn.Embedding where the table is a weight. What torch's embedding has beyond
/// these two inputs only concerns the gradient.
void lower_embedding(LowerContext& c) {
  if (const ir::Tensor* t = c.constant(0); t != nullptr && t->rank() == 2 && t->size() > 0 &&
                                           c.input(0)->is_initializer && ir::is_float(t->dtype()))
    if (const auto y = c.module("Embedding", {t->dims()[0], t->dims()[1]}, {},
                                {{.name = "weight", .value = c.input(0)}}, {c.in(1)}))
      return c.out(0, *y);
  c.out(0, aten("embedding", {c.in(0), c.in(1)}));
}

void infer_embedding(InferContext& c) {
  const Shape& ids = c.shape(1);
  if (!ids.has_rank()) return c.set(0, c.dtype(0));
  Dims out = ids.dims();
  out.push_back(dim_of(c.shape(0), 1));
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

/// A call of an ATen function by its name; constants stand for its numbers. Spelt as torch.ops has
/// it: what torch's Python functions of the same name take may differ (a reduction by its name, for
/// one), or there is none.
void lower_aten(LowerContext& c) {
  std::string name = c.attr_string("operator", "");
  if (name.starts_with("aten::")) name = name.substr(6);
  if (const std::string overload = c.attr_string("overload_name", ""); !overload.empty())
    name += "." + overload;
  bool known = false;
  const auto schema = torch::schema_of(name, &known);
  if (!known || c.input_count() > schema.size())
    c.unsupported("the ATen function \"" + name + "\" is not known with these arguments");
  if (name == "embedding") return lower_embedding(c);
  Args args;
  Kwargs keywords;
  for (std::size_t i = 0; i < c.input_count(); ++i) {
    const bool tensor = schema[i].type.starts_with("Tensor");
    Ex value = kNone;
    if (c.has_input(i) && tensor) {
      value = c.in(i);
    } else if (c.has_input(i)) {
      const ir::Tensor* t = c.constant(i);
      if (t == nullptr || t->rank() > 1 || ir::info(t->dtype()).kind == 's')
        c.unsupported("the argument \"" + std::string(schema[i].name) + "\" is not constant");
      value = nested_list(*t);
      if (schema[i].type.starts_with("bool") && value.is_int()) value = Ex(value->integer != 0);
    }
    if (schema[i].keyword_only) {
      keywords.emplace_back(schema[i].name, value);
    } else {
      args.push_back(value);
    }
  }
  const Ex y = torch::call("torch.ops.aten." + name, args, keywords);
  if (c.output_count() == 1) return c.out(0, y);
  c.outs(y);
}

void infer_aten(InferContext& c) {
  const std::string name = c.attr_string("operator", "");
  if (name == "embedding" || name == "aten::embedding") infer_embedding(c);
}

constexpr OpDef kAtenOps[] = {
    {.type = "TorchEmbedding",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_embedding,
     .lower = lower_embedding},
    {.type = "ATen",
     .domain = "org.pytorch.aten",
     .changed_at = {1},
     .infer = infer_aten,
     .lower = lower_aten},
};

}  // namespace

std::span<const OpDef> aten_ops() {
  return kAtenOps;
}

}  // namespace onnx2nn::ops
