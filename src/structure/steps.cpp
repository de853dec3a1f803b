#include "structure/steps.h"

#include <set>

#include "structure/walk.h"
#include "torch/python_names.h"

namespace onnx2nn::structure {
namespace {

using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;

/// How many numbers a call has whose scale is hole `h`: a zero point, and for other than int8 between
/// which integers it stays. 0 where they are not of a byte, which any float holds, or it is no call.
std::size_t numbers_of_byte(const Normal& n, std::size_t h) {
  constexpr std::int64_t kLow = -128;
  constexpr std::int64_t kHigh = 255;
  const auto is = [&](std::size_t i, ExprKind kind) {
    return i < n.holes.size() && is_fake_quantize(n.holes[i].of) && n.holes[i].member.empty() &&
           n.holes[i].value->kind == kind;
  };
  if (!is(h, ExprKind::Float)) return 0;
  std::size_t count = 1;
  for (; is(h + count, ExprKind::Int); ++count) {
    const std::int64_t number = n.holes[h + count].value->integer;
    if (number < kLow || number > kHigh) return 0;
  }
  return count == 2 || count == 4 ? count : 0;
}

std::string free_name(const Own& own) {
  std::set<std::string> used;
  for (const Member& m : own.members) used.insert(m.name);
  std::string name = "steps";
  for (int k = 2; used.count(name) != 0; ++k) name = "steps" + std::to_string(k);
  return name;
}

}  // namespace

Steps take_steps(const std::vector<Own*>& modules, std::vector<Normal>& normals, std::size_t with,
                 const std::string& optional) {
  Steps out;
  if (modules.size() < 2 || modules[0]->parent == nullptr) return out;
  const Normal& first = normals[0];
  std::vector<std::vector<std::size_t>> at(modules.size());  // by module, where its scales are
  std::size_t lacking = 0;  // holes before this one that modules without the optional member lack
  for (std::size_t h = 0; h < first.holes.size(); ++h) {
    if (!optional.empty() && first.holes[h].member == optional) ++lacking;
    const std::size_t numbers = numbers_of_byte(first, h);
    if (numbers == 0) continue;
    std::vector<std::size_t> places;
    bool differs = false;
    bool plain = true;
    for (std::size_t m = 0; m < modules.size(); ++m) {
      places.push_back(with > 0 && m >= with ? h - lacking : h);
      plain = plain && numbers_of_byte(normals[m], places[m]) == numbers;
      for (std::size_t i = 0; plain && i < numbers; ++i) {
        const bool same = equal(*normals[m].holes[places[m] + i].value, *first.holes[h + i].value);
        differs = differs || (!same && i < 2);
        plain = plain && (same || i < 2);
      }
    }
    if (plain && differs) {
      out.scales.push_back(h);
      for (std::size_t m = 0; m < modules.size(); ++m) at[m].push_back(places[m]);
    }
    if (plain) h += numbers - 1;
  }
  if (out.scales.empty()) return out;
  out.name = free_name(*modules[0]);
  for (std::size_t m = 0; m < modules.size(); ++m) {
    std::vector<float> rows;
    for (const std::size_t h : at[m]) {
      rows.push_back(static_cast<float>(normals[m].holes[h].value->number));
      rows.push_back(static_cast<float>(normals[m].holes[h + 1].value->integer));
    }
    auto p = std::make_shared<torch::Param>();
    p->path = modules[m]->path;
    p->path.push_back(out.name);
    p->shape = {static_cast<std::int64_t>(at[m].size()), 2};
    p->tensor = ir::Tensor::from<float>(ir::DType::Float32, p->shape, rows);
    p->persistent = false;
    out.buffers.push_back(std::move(p));
  }
  for (std::size_t m = modules.size(); m-- > 0;)
    for (std::size_t r = 0; r < out.scales.size(); ++r)
      for (std::size_t i = 0; i < 2; ++i)
        normals[m].holes[at[m][r] + i].value = normals[0].holes[out.scales[r] + i].value;
  return out;
}

void read_steps(const Steps& steps, std::vector<ExprPtr>& numbers) {
  for (std::size_t r = 0; r < steps.scales.size(); ++r) {
    const Ex row = torch::op("[]", {torch::attribute(torch::self(), steps.name), Ex(r)});
    numbers[steps.scales[r]] = torch::op("*", {row}).ptr();
    numbers[steps.scales[r] + 1] = Ex().ptr();
  }
}

void drop_zero_points(torch::Block& block) {
  rewrite(block, [](const ExprPtr& e) -> ExprPtr {
    if (e->kind != ExprKind::Helper || !is_fake_quantize(e->text) || e->args.size() < 3 ||
        e->args[1]->kind != ExprKind::Op || e->args[1]->text != "*")
      return nullptr;
    auto copy = std::make_shared<Expr>(*e);
    copy->args.erase(copy->args.begin() + 2);
    return copy;
  });
}

}  // namespace onnx2nn::structure
