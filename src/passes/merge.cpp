// Equal things that are there twice.
#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_map>

#include "ops/onnx/training.h"
#include "passes/rules.h"
#include "support/hash.h"
#include "support/interrupt.h"

namespace onnx2nn::passes {
namespace {

template <typename T>
void append(std::string& key, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  key.append(bytes, sizeof(T));
}

void append_text(std::string& key, std::string_view text) {
  append(key, text.size());
  key += text;
}

/// The attribute's value as bytes; false where it holds what is not compared.
bool append_attribute(std::string& key, const ir::Attribute& a) {
  append_text(key, a.name);
  append(key, a.data.index());
  if (const auto* i = std::get_if<std::int64_t>(&a.data)) {
    append(key, *i);
  } else if (const auto* f = std::get_if<double>(&a.data)) {
    append(key, *f);
  } else if (const auto* s = std::get_if<std::string>(&a.data)) {
    append_text(key, *s);
  } else if (const auto* ints = std::get_if<Ints>(&a.data)) {
    append(key, ints->size());
    for (const std::int64_t v : *ints) append(key, v);
  } else if (const auto* floats = std::get_if<std::vector<double>>(&a.data)) {
    append(key, floats->size());
    for (const double v : *floats) append(key, v);
  } else if (const auto* strings = std::get_if<std::vector<std::string>>(&a.data)) {
    append(key, strings->size());
    for (const std::string& v : *strings) append_text(key, v);
  } else if (const auto* t = std::get_if<ir::TensorPtr>(&a.data);
             t != nullptr && *t && (*t)->dtype() != ir::DType::String && (*t)->size() <= 4096) {
    append(key, (*t)->dtype());
    append(key, (*t)->rank());
    for (const std::int64_t d : (*t)->dims()) append(key, d);
    append_text(key, {reinterpret_cast<const char*>((*t)->bytes().data()), (*t)->bytes().size()});
  } else {
    return false;
  }
  return true;
}

/// Everything that says what `n` computes; empty where it is not to be merged.
std::string key_of(const ir::Node& n) {
  if (n.op == nullptr || ops::is_random(n)) return {};
  // Runtimes take a DequantizeLinear for its one reader's, and fuse the two.
  if (n.op_type == "DequantizeLinear" || n.op_type == "QuantizeLinear") return {};
  std::string key;
  append_text(key, n.op_type);
  append_text(key, n.domain);
  append(key, n.opset);
  append(key, n.input_count());
  for (std::size_t i = 0; i < n.input_count(); ++i) append(key, n.input(i));
  append(key, n.output_count());
  for (const ir::Value* v : n.outputs()) key += v != nullptr ? '1' : '0';
  std::vector<const ir::Attribute*> attributes;
  for (const ir::Attribute& a : n.attributes) attributes.push_back(&a);
  std::sort(attributes.begin(), attributes.end(),
            [](const auto* a, const auto* b) { return a->name < b->name; });
  for (const ir::Attribute* a : attributes)
    if (!append_attribute(key, *a)) return {};
  return key;
}

/// What an integer value holds, as expressions: whatever computes the same is the same. Empty where
/// not all is known.
std::string contents_key(const ir::Value& v) {
  if (!v.contents || v.contents->empty() || v.contents->size() > 16 || !v.type.is_tensor() ||
      !v.type.shape.has_rank() || v.type.shape.rank() > 1)
    return {};
  std::string key = "contents";
  append(key, v.type.dtype);
  append(key, v.type.shape.rank());
  for (const ir::Dim& d : *v.contents) {
    if (!d.known()) return {};
    append_text(key, d.str());
  }
  return key;
}

/// A hash of the beginning and the end, which tells most tensors apart without reading them whole.
std::string initializer_key(const ir::Tensor& t) {
  constexpr std::size_t kSample = 2048;
  std::string key;
  append(key, t.dtype());
  append(key, t.byte_size());
  for (const std::int64_t d : t.dims()) append(key, d);
  const std::size_t n = std::min(kSample, t.byte_size());
  std::array<std::byte, kSample> buffer;
  for (const std::size_t at : {std::size_t{0}, t.byte_size() - n}) {
    const std::span<std::byte> part = std::span(buffer).first(n);
    t.source().read(at, part);
    const Hash128 h = hash128(part);
    append(key, h.low);
    append(key, h.high);
  }
  for (const std::string& s : t.strings()) append_text(key, s);
  return key;
}

bool same_bytes(const ir::Tensor& a, const ir::Tensor& b) {
  constexpr std::size_t kBlock = std::size_t{1} << 20;
  if (a.source().is_same_place(b.source())) return true;
  const std::size_t size = a.byte_size();
  std::vector<std::byte> x(std::min(kBlock, size));
  std::vector<std::byte> y(x.size());
  for (std::size_t at = 0; at < size; at += kBlock) {
    check_interrupt();
    const std::size_t n = std::min(kBlock, size - at);
    a.source().read(at, std::span(x).first(n));
    b.source().read(at, std::span(y).first(n));
    if (std::memcmp(x.data(), y.data(), n) != 0) return false;
  }
  return true;
}

}  // namespace

namespace {

/// What a graph has computed so far, and what the graphs around it had before they came to it.
struct Scope {
  std::unordered_map<std::string, ir::Node*> seen;
  const Scope* outer = nullptr;

  ir::Node* find(const std::string& key) const {
    for (const Scope* s = this; s != nullptr; s = s->outer)
      if (const auto it = s->seen.find(key); it != s->seen.end()) return it->second;
    return nullptr;
  }
};

/// A graph cannot give out what belongs to the graph around it.
bool is_given_out(const ir::Node& n) {
  for (const ir::Value* v : n.outputs())
    for (const ir::Use* u = v != nullptr ? v->first_use() : nullptr; u != nullptr; u = u->next)
      if (u->user->op_type == "Return") return true;
  return false;
}

std::size_t merge_equal_nodes(Rewriter& w, ir::Graph& g, std::size_t most, const Scope* outer) {
  Scope scope{{}, outer};
  std::size_t merged = 0;
  for (ir::Node* n = g.first(); n != nullptr && merged < most;) {
    ir::Node* next = n->next();
    for (ir::Graph* inner : n->subgraphs())
      merged += merge_equal_nodes(w, *inner, most - merged, &scope);
    std::string key = key_of(*n);
    if (!key.empty() && merged < most) {
      ir::Node* equal = scope.find(key);
      if (equal == nullptr || (equal->graph() != &g && is_given_out(*n))) {
        scope.seen.emplace(std::move(key), n);
      } else {
        for (std::size_t i = 0; i < n->output_count(); ++i)
          if (n->output(i) != nullptr) w.replace(n->output(i), equal->output(i));
        w.erase(*n);
        ++merged;
      }
    }
    n = next;
  }
  return merged;
}

}  // namespace

// a = Relu(x); b = Relu(x)   =>   a for b
std::size_t merge_equal_nodes(Rewriter& w, ir::Graph& g, std::size_t most) {
  return merge_equal_nodes(w, g, most, nullptr);
}

// s = Gather(Shape(x: [n, 8]), 0); t = Gather(Shape(Relu(x)), 0)   =>   s for t: both are n
std::size_t merge_equal_contents(Rewriter& w, ir::Graph& g, std::size_t most) {
  std::unordered_map<std::string, ir::Value*> seen;
  std::size_t merged = 0;
  for (ir::Node* n = g.first(); n != nullptr; n = n->next()) {
    for (ir::Graph* inner : n->subgraphs())
      merged += merge_equal_contents(w, *inner, most - merged);
    for (ir::Value* v : n->outputs()) {
      if (v == nullptr || !v->has_uses() || merged == most) continue;
      std::string key = contents_key(*v);
      if (key.empty()) continue;
      const auto [it, added] = seen.emplace(std::move(key), v);
      if (added) continue;
      w.replace(v, it->second);
      ++merged;
    }
  }
  return merged;
}

// w = {1, 2}; v = {1, 2}   =>   w for v, where type, shape and every bit are the same
std::size_t merge_equal_initializers(Rewriter& w, ir::Graph& g, std::size_t most) {
  std::unordered_map<std::string, std::vector<ir::Value*>> seen;
  constexpr std::size_t kFew = 8;
  std::unordered_map<std::string, std::vector<ir::Value*>> seen_whole;
  std::size_t merged = 0;
  for (ir::Value* v : g.initializers) {
    if (merged == most) break;
    if (!v->constant || !v->has_uses() || (v->is_graph_input && !w.model().info.weights_are_inputs))
      continue;
    const auto equal = [&](const ir::Value* other) {
      return same_bytes(*v->constant, *other->constant);
    };
    std::string key = initializer_key(*v->constant);
    auto* equals = &seen[key];
    auto it = std::find_if(equals->begin(), equals->end(), equal);
    if (it == equals->end() && equals->size() >= kFew) {
      // Where many begin and end alike, a hash of the whole tells them apart.
      const Hash128 h = hash128(v->constant->bytes());
      append(key, h.low);
      append(key, h.high);
      equals = &seen_whole[key];
      it = std::find_if(equals->begin(), equals->end(), equal);
    }
    if (it == equals->end()) {
      equals->push_back(v);
    } else {
      w.replace(v, *it);
      ++merged;
    }
  }
  for (ir::Node* n = g.first(); n != nullptr; n = n->next())
    for (ir::Graph* inner : n->subgraphs())
      merged += merge_equal_initializers(w, *inner, most - merged);
  return merged;
}

namespace {

std::size_t own_constants_of(ir::Graph& g, std::size_t most) {
  // What is larger is worth an Identity.
  constexpr std::size_t kLargest = 1024;
  std::unordered_map<const ir::Value*, ir::Value*> own;
  std::size_t made = 0;
  for (std::size_t i = 0; i < g.output_count() && made < most; ++i) {
    const ir::Value* v = g.output(i);
    if (v == nullptr || !v->constant || v->graph() == &g ||
        v->constant->dtype() == ir::DType::String || v->constant->byte_size() > kLargest)
      continue;
    ir::Value*& mine = own[v];
    if (mine == nullptr) mine = g.add_initializer(v->name, v->constant, false);
    g.return_node()->set_input(i, mine);
    ++made;
  }
  return made;
}

}  // namespace

// c = {1}; If(x) <then () => (c) {}>   =>   If(x) <then () => (d) { d = {1} }>
// A file has to copy what a graph gives out of another; a second run would fold that copy.
std::size_t own_constants(Rewriter& w, ir::Graph& g, std::size_t most) {
  std::size_t made = 0;
  for (ir::Node* n = g.first(); n != nullptr; n = n->next())
    for (ir::Graph* inner : n->subgraphs()) {
      made += own_constants_of(*inner, most - made);
      made += own_constants(w, *inner, most - made);
    }
  return made;
}

}  // namespace onnx2nn::passes
