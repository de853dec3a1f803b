#include "inspect/attributes.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <variant>

#include <fmt/core.h>

#include "inspect/multiply_adds.h"
#include "ops/onnx_schemas.h"
#include "support/clipped.h"
#include "support/text.h"

namespace onnx2nn::inspect {
namespace {

using ir::Graph;

// Elements of a list or characters of a text that are shown.
constexpr std::size_t kShown = 8;
constexpr std::size_t kText = 80;

/// "0.01": attributes are floats of 32 bits.
std::string number_text(double x) { return fmt::format("{}", static_cast<float>(x)); }

template <typename T, typename Show>
std::string list_text(const std::vector<T>& list, Show&& show) {
  std::vector<std::string> out;
  for (const T& x : list) {
    if (out.size() == kShown) {
      out.push_back(fmt::format("... ({} in all)", list.size()));
      break;
    }
    out.push_back(show(x));
  }
  return "[" + join(out, ", ") + "]";
}

struct AttributeText {
  std::string operator()(std::int64_t x) const { return std::to_string(x); }
  std::string operator()(double x) const { return number_text(x); }
  std::string operator()(const std::string& s) const { return quoted(s); }
  std::string operator()(const std::vector<std::int64_t>& l) const {
    return list_text(l, [](std::int64_t x) { return std::to_string(x); });
  }
  std::string operator()(const std::vector<double>& l) const {
    return list_text(l, number_text);
  }
  std::string operator()(const std::vector<std::string>& l) const { return list_text(l, quoted); }
  std::string operator()(const ir::TensorPtr& t) const { return t ? text_of(*t) : ""; }
  std::string operator()(const std::vector<ir::TensorPtr>& l) const {
    return fmt::format("{} tensors", l.size());
  }
  std::string operator()(const std::unique_ptr<Graph>& g) const {
    return fmt::format("a graph of {} nodes", g->node_count());
  }
  std::string operator()(const ir::Attribute::Graphs& l) const { return fmt::format("{} graphs", l.size()); }
  std::string operator()(const ir::Type& t) const { return text_of(t); }
};

std::string_view default_of(const ir::Node& n, const std::string& attribute) {
  return ops::default_of(n.domain, n.op_type, n.opset, attribute);
}

}  // namespace

/// A type without what inference does not know: "float32[batch, 3, ?]".
std::string text_of(const ir::Type& type) {
  if (!type.is_tensor()) return type.kind == ir::Type::Kind::Unknown ? "?" : type.str();
  std::string out(ir::info(type.dtype).name);
  if (!type.shape.has_rank()) return out;
  std::string dims;
  for (const ir::Dim& d : type.shape.dims()) {
    if (!dims.empty()) dims += ", ";
    dims += is_said(d) ? d.str() : "?";
  }
  return out + "[" + dims + "]";
}

std::string text_of(const ir::Tensor& t) {
  const std::string type = text_of(ir::Type::tensor(t.dtype(), ir::Shape::of(t.dims())));
  const char kind = ir::info(t.dtype()).kind;
  if (t.size() != 1 || (kind != 'i' && kind != 'u' && kind != 'f') || t.source().is_missing()) return type;
  return kind == 'i' ? fmt::format("{} {}", type, t.int_at(0)) : fmt::format("{} {}", type, t.double_at(0));
}

std::string text_of(const ir::Attribute& a) { return std::visit(AttributeText(), a.data); }

std::string default_text(const ir::Node& n, const std::string& attribute) {
  const std::string_view text = default_of(n, attribute);
  return text.empty() ? "(none)" : fmt::format("{} (default)", text);
}

std::string quoted(const std::string& s) {
  return '"' + (s.size() > kText ? std::string(clipped(s, kText)) + "..." : s) + '"';
}

std::string names_text(const std::vector<std::string>& names) {
  return list_text(names, [](const std::string& name) { return name; });
}

bool is_same(const ir::Attribute& a, const ir::Attribute& b, Contents& contents) {
  if (a.data.index() != b.data.index()) return false;
  if (const auto* t = std::get_if<ir::TensorPtr>(&a.data)) {
    const auto& other = std::get<ir::TensorPtr>(b.data);
    return *t && other ? contents.of(**t) == contents.of(*other) : *t == other;
  }
  if (const auto* list = std::get_if<std::vector<ir::TensorPtr>>(&a.data)) {
    const auto& other = std::get<std::vector<ir::TensorPtr>>(b.data);
    return std::equal(list->begin(), list->end(), other.begin(), other.end(), [&](const auto& x, const auto& y) {
      return x && y ? contents.of(*x) == contents.of(*y) : x == y;
    });
  }
  if (const auto* type = std::get_if<ir::Type>(&a.data))
    return type->str() == std::get<ir::Type>(b.data).str();
  // Nodes of nested graphs are compared by themselves.
  if (std::holds_alternative<std::unique_ptr<Graph>>(a.data)) return true;
  if (const auto* list = std::get_if<ir::Attribute::Graphs>(&a.data))
    return list->size() == std::get<ir::Attribute::Graphs>(b.data).size();
  if (const auto* x = std::get_if<std::int64_t>(&a.data)) return *x == std::get<std::int64_t>(b.data);
  if (const auto* x = std::get_if<double>(&a.data)) {
    const double y = std::get<double>(b.data);
    return *x == y || (std::isnan(*x) && std::isnan(y));
  }
  if (const auto* x = std::get_if<std::string>(&a.data)) return *x == std::get<std::string>(b.data);
  if (const auto* x = std::get_if<std::vector<std::int64_t>>(&a.data))
    return *x == std::get<std::vector<std::int64_t>>(b.data);
  if (const auto* x = std::get_if<std::vector<double>>(&a.data))
    return *x == std::get<std::vector<double>>(b.data);
  return std::get<std::vector<std::string>>(a.data) == std::get<std::vector<std::string>>(b.data);
}

bool is_at_default(const ir::Node& n, const ir::Attribute& a) {
  const std::string_view text = default_of(n, a.name);
  if (text.empty()) return false;
  constexpr std::string_view kEach = "each ";
  if (!text.starts_with(kEach)) return text == text_of(a);
  const auto* list = std::get_if<std::vector<std::int64_t>>(&a.data);
  return list != nullptr && std::all_of(list->begin(), list->end(), [&](std::int64_t x) {
           return std::to_string(x) == text.substr(kEach.size());
         });
}

}  // namespace onnx2nn::inspect
