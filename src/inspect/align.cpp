#include "inspect/align.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "inspect/attributes.h"
#include "support/error.h"
#include "support/interrupt.h"

namespace onnx2nn::inspect {
namespace {

using ir::Graph;
using ir::Node;
using ir::Value;

using Hash = std::uint64_t;

constexpr Hash mix(Hash h, Hash x) {
  h ^= x + 0x9e3779b97f4a7c15ULL + (h << 6U) + (h >> 2U);
  h *= 0xff51afd7ed558ccdULL;
  return h ^ (h >> 33U);
}

Hash hash_of(std::string_view text) { return std::hash<std::string_view>()(text); }

Hash hash_of(std::span<const std::byte> bytes, Hash h) {
  std::size_t at = 0;
  for (; at + sizeof(Hash) <= bytes.size(); at += sizeof(Hash)) {
    Hash word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    h = (h ^ word) * 0x9ddfea08eb382d69ULL;
    h ^= h >> 29U;
  }
  Hash rest = 0;
  if (at < bytes.size()) std::memcpy(&rest, bytes.data() + at, bytes.size() - at);
  return mix(h, rest);
}

/// Constants that tell a node from others: a scalar is in many places.
constexpr std::int64_t kTelling = 8;

/// Unmatched nodes that the walk along edges looks past.
constexpr std::size_t kLookahead = 4;

class Aligner {
 public:
  Aligner(const Graph& a, const Graph& b, Contents& contents, Alignment& out)
      : a_(a), b_(b), contents_(contents), out_(out) {}

  void run() {
    const Forward hashes_a = forward(a_);
    const Forward hashes_b = forward(b_);
    match(a_, b_, [&](const Node& n) {
      const auto& known = n.graph() == &a_ ? hashes_a : hashes_b;
      return std::optional(known.at(&n));
    });
    match_unique([&](const Node& n) { return weights_key(n); });
    extend_from_borders();
    extend();
    match_unique([&](const Node& n) -> std::optional<Hash> {
      const Value* v = n.output_count() > 0 ? n.output(0) : nullptr;
      if (v == nullptr || v->name.empty()) return std::nullopt;
      return mix(operator_key(n), hash_of(v->name));
    });
    match_unique([&](const Node& n) -> std::optional<Hash> {
      if (n.name.empty()) return std::nullopt;
      return mix(operator_key(n), hash_of(n.name));
    });
    extend();
  }

 private:
  using Forward = std::unordered_map<const Node*, Hash>;

  static Hash operator_key(const Node& n) { return mix(hash_of(n.op_type), hash_of(n.domain)); }

  bool is_matched(const Node& n) const {
    return out_.to_second.contains(&n) || out_.to_first.contains(&n);
  }

  void pair(const Node& a, const Node& b) {
    out_.to_second.emplace(&a, &b);
    out_.to_first.emplace(&b, &a);
    todo_.emplace_back(&a, &b);
  }

  /// A hash of all that a node computes from.
  Forward forward(const Graph& graph) {
    Forward out;
    std::unordered_map<const Value*, Hash> inputs;
    for (std::size_t i = 0; i < graph.inputs.size(); ++i) inputs[graph.inputs[i]] = hash_of(graph.inputs[i]->name);
    for (const Node* n = graph.first(); n != nullptr; n = n->next()) {
      check_interrupt();
      Hash h = signature_of(*n, contents_);
      for (std::size_t i = 0; i < n->input_count(); ++i) {
        const Value* v = n->input(i);
        Hash operand = 1;
        if (v != nullptr && v->is_constant()) {
          operand = contents_.of(*v->constant);
        } else if (v != nullptr && v->producer() != nullptr && out.contains(v->producer())) {
          operand = mix(out.at(v->producer()), v->output_index());
        } else if (v != nullptr) {
          operand = hash_of(v->name);  // an input, or a value of the graph around
        }
        h = mix(h, operand);
      }
      out.emplace(n, h);
    }
    return out;
  }

  /// Pairs unmatched nodes of equal keys in their order.
  template <typename Key>
  void match(const Graph& a, const Graph& b, Key&& key) {
    std::unordered_map<Hash, std::vector<const Node*>> waiting;
    for (const Node* n = b.last(); n != nullptr; n = n->prev())
      if (!is_matched(*n))
        if (const auto k = key(*n)) waiting[*k].push_back(n);
    for (const Node* n = a.first(); n != nullptr; n = n->next()) {
      if (is_matched(*n)) continue;
      const auto k = key(*n);
      if (!k) continue;
      const auto it = waiting.find(*k);
      if (it == waiting.end() || it->second.empty()) continue;
      pair(*n, *it->second.back());
      it->second.pop_back();
    }
  }

  /// Pairs unmatched nodes whose key nothing else in their graphs has.
  template <typename Key>
  void match_unique(Key&& key) {
    struct Found {
      const Node* node = nullptr;
      bool once = true;
    };
    const auto collect = [&](const Graph& graph) {
      std::unordered_map<Hash, Found> out;
      for (const Node* n = graph.first(); n != nullptr; n = n->next()) {
        if (is_matched(*n)) continue;
        const auto k = key(*n);
        if (!k) continue;
        Found& found = out[*k];
        found.once = found.node == nullptr;
        found.node = n;
      }
      return out;
    };
    const auto in_a = collect(a_);
    const auto in_b = collect(b_);
    for (const Node* n = a_.first(); n != nullptr; n = n->next()) {
      if (is_matched(*n)) continue;
      const auto k = key(*n);
      if (!k) continue;
      const auto one = in_a.find(*k);
      const auto other = in_b.find(*k);
      if (other != in_b.end() && one->second.once && other->second.once) pair(*n, *other->second.node);
    }
  }

  /// An operator and the weights that it reads.
  std::optional<Hash> weights_key(const Node& n) {
    Hash h = operator_key(n);
    bool tells = false;
    for (std::size_t i = 0; i < n.input_count(); ++i) {
      const Value* v = n.input(i);
      if (v == nullptr || !v->is_constant() || v->constant->size() < kTelling) continue;
      h = mix(h, contents_.of(*v->constant));
      tells = true;
    }
    return tells ? std::optional(h) : std::nullopt;
  }

  // ---- Along the edges ----

  static bool alike(const Node& a, const Node& b) {
    return a.op_type == b.op_type && a.domain == b.domain;
  }

  /// What reads a value in its own graph, as far as it is unmatched: the reader, and the operand that it is.
  std::vector<std::pair<const Node*, std::uint32_t>> readers(const Value& v, const Graph& graph) const {
    std::vector<std::pair<const Node*, std::uint32_t>> out;
    for (const ir::Use* use = v.first_use(); use != nullptr; use = use->next)
      if (use->user->graph() == &graph && use->user != graph.return_node() && !is_matched(*use->user))
        out.emplace_back(use->user, use->index);
    std::reverse(out.begin(), out.end());  // uses are put in front
    return out;
  }

  void extend_readers(const Value& a, const Value& b) {
    const auto of_a = readers(a, a_);
    const auto of_b = readers(b, b_);
    if (of_a.empty() || of_b.empty()) return;
    std::map<std::pair<Hash, std::uint32_t>, std::vector<const Node*>> waiting;
    for (auto it = of_b.rbegin(); it != of_b.rend(); ++it)
      waiting[{operator_key(*it->first), it->second}].push_back(it->first);
    bool any = false;
    for (const auto& [n, index] : of_a) {
      if (is_matched(*n)) continue;  // it reads the value twice
      const auto it = waiting.find({operator_key(*n), index});
      while (it != waiting.end() && !it->second.empty() && is_matched(*it->second.back()))
        it->second.pop_back();
      if (it == waiting.end() || it->second.empty()) continue;
      pair(*n, *it->second.back());
      it->second.pop_back();
      any = true;
    }
    if (!any) look_past(chain(*of_a[0].first, a_), chain(*of_b[0].first, b_));
  }

  /// A node and those behind it, each the only reader of the one before.
  std::vector<const Node*> chain(const Node& from, const Graph& graph) const {
    std::vector<const Node*> out = {&from};
    while (out.size() < kLookahead) {
      const Node* n = out.back();
      if (n->output_count() == 0 || n->output(0) == nullptr || !n->output(0)->has_one_use()) break;
      const Node* next = n->output(0)->first_use()->user;
      if (next->graph() != &graph || next == graph.return_node() || is_matched(*next)) break;
      out.push_back(next);
    }
    return out;
  }

  /// The nearest of two rows of nodes that are alike.
  void look_past(const std::vector<const Node*>& a, const std::vector<const Node*>& b) {
    for (std::size_t sum = 0; sum + 1 < a.size() + b.size(); ++sum)
      for (std::size_t i = 0; i <= sum && i < a.size(); ++i)
        if (sum - i < b.size() && alike(*a[i], *b[sum - i])) return pair(*a[i], *b[sum - i]);
  }

  void extend_producers(const Value* a, const Value* b) {
    if (a == nullptr || b == nullptr) return;
    const Node* of_a = a->producer();
    const Node* of_b = b->producer();
    if (of_a == nullptr || of_b == nullptr || of_a->graph() != &a_ || of_b->graph() != &b_) return;
    if (is_matched(*of_a) || is_matched(*of_b)) return;
    if (alike(*of_a, *of_b)) pair(*of_a, *of_b);
  }

  void extend_from_borders() {
    std::unordered_map<std::string_view, const Value*> inputs;
    for (const Value* v : b_.inputs) inputs.emplace(v->name, v);
    for (std::size_t i = 0; i < a_.inputs.size(); ++i) {
      const auto it = inputs.find(a_.inputs[i]->name);
      const Value* other = it != inputs.end() ? it->second : i < b_.inputs.size() ? b_.inputs[i] : nullptr;
      if (other != nullptr && !a_.inputs[i]->is_constant()) extend_readers(*a_.inputs[i], *other);
    }
    std::unordered_map<std::string_view, const Value*> outputs;
    for (std::size_t i = 0; i < b_.output_count(); ++i) outputs.emplace(b_.output_names[i], b_.output(i));
    for (std::size_t i = 0; i < a_.output_count(); ++i) {
      const auto it = outputs.find(a_.output_names[i]);
      extend_producers(a_.output(i), it != outputs.end()        ? it->second
                                     : i < b_.output_count() ? b_.output(i)
                                                             : nullptr);
    }
  }

  void extend() {
    while (!todo_.empty()) {
      check_interrupt();
      const auto [a, b] = todo_.back();
      todo_.pop_back();
      for (std::size_t i = 0; i < std::min(a->input_count(), b->input_count()); ++i)
        extend_producers(a->input(i), b->input(i));
      for (std::size_t j = 0; j < std::min(a->output_count(), b->output_count()); ++j)
        if (a->output(j) != nullptr && b->output(j) != nullptr)
          extend_readers(*a->output(j), *b->output(j));
    }
  }

  const Graph& a_;
  const Graph& b_;
  Contents& contents_;
  Alignment& out_;
  std::vector<std::pair<const Node*, const Node*>> todo_;
};

void collect(const Graph& a, const Graph& b, Contents& contents, Alignment& out) {
  Aligner(a, b, contents, out).run();
  for (const Node* n = a.first(); n != nullptr; n = n->next()) {
    const auto it = out.to_second.find(n);
    if (it == out.to_second.end()) {
      out.removed.push_back(n);
      continue;
    }
    out.pairs.emplace_back(n, it->second);
    const auto inner = n->subgraphs();
    const auto other = it->second->subgraphs();
    for (std::size_t i = 0; i < std::min(inner.size(), other.size()); ++i)
      collect(*inner[i], *other[i], contents, out);
  }
  for (const Node* n = b.first(); n != nullptr; n = n->next())
    if (!out.to_first.contains(n)) out.added.push_back(n);
}

}  // namespace

Hash Contents::of(const ir::Tensor& tensor) {
  const auto [it, is_new] = known_.emplace(&tensor, 0);
  if (!is_new) return it->second;
  Hash h = static_cast<Hash>(tensor.dtype());
  for (const std::int64_t d : tensor.dims()) h = mix(h, static_cast<Hash>(d));
  for (const std::string& s : tensor.strings()) h = mix(h, hash_of(s));
  const ByteSource& source = tensor.source();
  if (source.is_missing()) {
    h = mix(mix(h, hash_of(source.file()->path())), source.file_offset());
  } else {
    std::vector<std::byte> buffer(std::min<std::size_t>(source.size(), std::size_t{1} << 20));
    for (std::size_t at = 0; at < source.size();) {
      check_interrupt();
      const std::size_t n = std::min(buffer.size(), source.size() - at);
      source.read(at, {buffer.data(), n});
      h = hash_of({buffer.data(), n}, h);
      at += n;
    }
  }
  return it->second = h;
}

Hash signature_of(const Node& node, Contents& contents) {
  Hash h = mix(hash_of(node.op_type), hash_of(node.domain));
  h = mix(h, node.output_count());
  std::map<std::string_view, Hash> attributes;
  for (const ir::Attribute& a : node.attributes) {
    if (is_at_default(node, a)) continue;
    Hash value = a.data.index();
    const auto number = [&](double x) {
      Hash bits = 0;
      std::memcpy(&bits, &x, sizeof bits);
      value = mix(value, bits);
    };
    const auto graph = [&](const Graph& g) {
      for (const Node* n = g.first(); n != nullptr; n = n->next()) {
        value = mix(value, signature_of(*n, contents));
        for (std::size_t i = 0; i < n->input_count(); ++i)
          if (n->input(i) != nullptr && n->input(i)->is_constant())
            value = mix(value, contents.of(*n->input(i)->constant));
      }
    };
    if (const auto* i = std::get_if<std::int64_t>(&a.data)) value = mix(value, static_cast<Hash>(*i));
    if (const auto* x = std::get_if<double>(&a.data)) number(*x);
    if (const auto* s = std::get_if<std::string>(&a.data)) value = mix(value, hash_of(*s));
    if (const auto* list = std::get_if<std::vector<std::int64_t>>(&a.data))
      for (const std::int64_t i : *list) value = mix(value, static_cast<Hash>(i));
    if (const auto* list = std::get_if<std::vector<double>>(&a.data))
      for (const double x : *list) number(x);
    if (const auto* list = std::get_if<std::vector<std::string>>(&a.data))
      for (const std::string& s : *list) value = mix(value, hash_of(s));
    if (const auto* t = std::get_if<ir::TensorPtr>(&a.data))
      if (*t) value = mix(value, contents.of(**t));
    if (const auto* list = std::get_if<std::vector<ir::TensorPtr>>(&a.data))
      for (const ir::TensorPtr& t : *list) value = mix(value, t ? contents.of(*t) : 0);
    if (const auto* g = std::get_if<std::unique_ptr<Graph>>(&a.data)) graph(**g);
    if (const auto* list = std::get_if<ir::Attribute::Graphs>(&a.data))
      for (const auto& g : *list) graph(*g);
    if (const auto* type = std::get_if<ir::Type>(&a.data)) value = mix(value, hash_of(type->str()));
    attributes[a.name] = value;
  }
  for (const auto& [name, value] : attributes) h = mix(mix(h, hash_of(name)), value);
  return h;
}

Alignment align(const Graph& first, const Graph& second, Contents& contents) {
  Alignment out;
  collect(first, second, contents, out);
  return out;
}

}  // namespace onnx2nn::inspect
