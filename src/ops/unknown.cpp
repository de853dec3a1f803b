#include "ops/unknown.h"

#include <algorithm>

#include "torch/python_names.h"

namespace onnx2nn::ops {
namespace {

/// An attribute as a Python value; nothing where there is none (a graph).
std::optional<Ex> attribute_value(LowerContext& c, const ir::Attribute& a) {
  if (const auto* i = std::get_if<std::int64_t>(&a.data)) return Ex(*i);
  if (const auto* f = std::get_if<double>(&a.data)) return Ex(*f);
  if (const auto* s = std::get_if<std::string>(&a.data)) return Ex(*s);
  if (const auto* is = std::get_if<Ints>(&a.data)) return Ex(*is);
  if (const auto* fs = std::get_if<std::vector<double>>(&a.data)) return Ex(*fs);
  if (const auto* ss = std::get_if<std::vector<std::string>>(&a.data)) return Ex(*ss);
  if (const auto* t = std::get_if<ir::TensorPtr>(&a.data)) return c.buffer(a.name, *t);
  return std::nullopt;
}

bool is_given(const Kwargs& keywords, const std::string& name) {
  return std::any_of(keywords.begin(), keywords.end(),
                     [&](const auto& k) { return k.first == name; });
}

}  // namespace

std::string qualified_type(const ir::Node& node) {
  return (node.domain.empty() ? "" : node.domain + "::") + node.op_type;
}

void lower_custom(LowerContext& c, const std::string& function) {
  Args args;
  for (std::size_t i = 0; i < c.input_count(); ++i) args.push_back(c.in(i));
  Kwargs keywords;
  for (const ir::Attribute& a : c.node().attributes) {
    const auto value = attribute_value(c, a);
    if (!value) c.unsupported("the attribute \"" + a.name + "\" cannot be given to a function");
    if (!torch::is_argument_name(a.name))
      c.unsupported("the attribute \"" + a.name + "\" is no Python name");
    if (is_given(keywords, a.name)) c.fail("it has the attribute \"" + a.name + "\" twice");
    keywords.emplace_back(a.name, *value);
  }
  const Ex result = helper(function, args, keywords);
  if (c.output_count() == 1) {
    c.out(0, result);
  } else {
    c.outs(result);
  }
}

void lower_stub(LowerContext& c) {
  Args args{Ex(qualified_type(c.node()))};
  for (std::size_t i = 0; i < c.input_count(); ++i) args.push_back(c.in(i));
  Kwargs keywords{{"outputs", Ex(static_cast<std::int64_t>(c.output_count()))}};
  for (const ir::Attribute& a : c.node().attributes)
    if (torch::is_argument_name(a.name) && !is_given(keywords, a.name))
      if (const auto value = attribute_value(c, a)) keywords.emplace_back(a.name, *value);
  const Ex result = helper("unknown_operator", args, keywords);
  if (c.output_count() == 1) {
    c.out(0, result);
  } else {
    c.outs(result);
  }
}

}  // namespace onnx2nn::ops
