#include "structure/decoder.h"

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Decoder;
using torch::DecoderInput;
using torch::DecoderRole;
using torch::Port;
using torch::Program;

constexpr auto kMethods = std::to_array<std::string_view>({"empty_cache", "step", "generate"});

bool is_number(std::string_view dim) {
  return !dim.empty() &&
         std::all_of(dim.begin(), dim.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_int(const Port& p) { return p.dtype == "int64" || p.dtype == "int32"; }

bool is_real(const Port& p) { return p.dtype.starts_with("float") || p.dtype == "bfloat16"; }

std::size_t rank(const Port& p) { return p.shape ? p.shape->size() : 0; }

bool is_one_value(const Port& p) {
  return p.shape && (p.shape->empty() || *p.shape == std::vector<std::string>{"1"});
}

/// What is left of a name without its word for a cache: ".0.key" of past_key_values.0.key and of
/// present.0.key. Nothing where it has no such word.
std::optional<std::string> cache_of(const std::string& name, std::string_view word) {
  const std::string lower = to_lower(name);
  const std::size_t at = lower.find(word);
  if (at == std::string::npos) return std::nullopt;
  constexpr std::string_view kValues = "_key_values";
  const std::size_t end = at + word.size();
  const bool spelt = std::string_view(lower).substr(end).starts_with(kValues);
  return lower.substr(0, at) + lower.substr(end + (spelt ? kValues.size() : 0));
}

/// Whether a dimension may be any size: a number is one.
bool is_open(const std::string& dim) { return !is_number(dim); }

/// The role of an input that is no cache; nothing where there is none.
std::optional<DecoderRole> role_of(const Port& p) {
  if (p.kind != "tensor" || !p.shape) return std::nullopt;
  const std::string& name = p.onnx_name;
  const bool two = rank(p) == 2 && is_open((*p.shape)[1]);
  if (name == "input_ids" && two && is_int(p)) return DecoderRole::Tokens;
  if (name == "attention_mask" && two && (is_int(p) || p.dtype == "bool" || p.dtype == "float32"))
    return DecoderRole::Mask;
  if (name == "position_ids" && two && is_int(p)) return DecoderRole::Positions;
  if (name == "cache_position" && rank(p) == 1 && is_open((*p.shape)[0]) && is_int(p))
    return DecoderRole::Positions;
  if (name == "encoder_hidden_states" && rank(p) == 3 && is_real(p)) return DecoderRole::States;
  if (name == "encoder_attention_mask" && two && (is_int(p) || p.dtype == "bool"))
    return DecoderRole::StatesMask;
  if (name == "token_type_ids" && two && is_int(p)) return DecoderRole::TokenTypes;
  if (name == "use_cache_branch" && is_one_value(p) && p.dtype == "bool")
    return DecoderRole::UseCache;
  if ((name == "num_logits_to_keep" || name == "logits_to_keep") && is_one_value(p) && is_int(p))
    return DecoderRole::KeptLogits;
  return std::nullopt;
}

/// The sizes of a cache that holds no token: [batch, heads, 0, size] or, of both keys and values,
/// [2, batch, heads, 0, size]. The file may leave the last one open for one cache of any kind of
/// values; then it is `grown`'s, the output's. Nothing where another size is open too, or the length
/// is not.
std::optional<std::vector<std::string>> empty_sizes(const Port& p, const Port& grown,
                                                    std::size_t& length_axis) {
  if (p.kind != "tensor" || !is_real(p) || (rank(p) != 4 && rank(p) != 5)) return std::nullopt;
  const std::size_t batch = rank(p) - 4;
  if (batch == 1 && p.shape->front() != "2") return std::nullopt;
  std::vector<std::string> sizes = *p.shape;
  if (rank(grown) == sizes.size() && is_number(grown.shape->back()))
    sizes.back() = grown.shape->back();
  sizes[batch] = "batch";
  std::size_t open = 0;
  for (std::size_t i = batch + 1; i < sizes.size(); ++i) {
    if (is_number(sizes[i])) continue;
    sizes[i] = "0";
    length_axis = i;
    ++open;
  }
  if (open != 1) return std::nullopt;
  return sizes;
}

/// The caches' dtype, and where a tensor of it comes from; false where the model has no weights.
bool find_weights(const Program& program, std::string_view dtype, Decoder& decoder) {
  bool same = true;
  bool buffers = false;
  for (const torch::ParamPtr& p : program.params) {
    if (p->quantized) continue;
    buffers = buffers || !p->trainable;
    if (!p->trainable) continue;
    decoder.of_parameters = true;
    same = same && ir::info(p->dtype).torch_name == dtype;
  }
  if (!same || !decoder.of_parameters) decoder.cache_dtype = dtype;
  return decoder.of_parameters || buffers;
}

/// Whether the model's class has a member called as a method that it would get.
bool has_methods(const Program& program) {
  const auto is_method = [](const std::string& name) {
    return std::find(kMethods.begin(), kMethods.end(), name) != kMethods.end();
  };
  const auto of = [&](const auto& all) {
    return std::any_of(all.begin(), all.end(), [&](const auto& m) { return is_method(m->path.at(0)); });
  };
  if (of(program.params) || of(program.modules) || of(program.constants)) return true;
  for (const torch::Function& f : program.classes.back().functions) {
    if (is_method(f.name)) return true;
    for (const torch::Stmt& s : f.body)
      if (s.kind == torch::Stmt::Kind::Set && is_method(s.place->text)) return true;
  }
  return false;
}

/// The outputs that hold logits and caches, these by what their names have besides the word for one.
bool read_outputs(const Program& program, Decoder& decoder,
                  std::map<std::string, std::size_t>& caches) {
  bool logits = false;
  decoder.outputs = program.outputs.size();
  for (std::size_t i = 0; i < program.outputs.size(); ++i) {
    const Port& p = program.outputs[i];
    if (p.onnx_name == "logits" && rank(p) == 3 && p.kind == "tensor") {
      decoder.logits = i;
      logits = true;
    } else if (const std::optional<std::string> cache = cache_of(p.onnx_name, "present")) {
      if (!caches.emplace(*cache, i).second) return false;
    }
  }
  return logits;
}

/// The inputs' roles. All caches stand one after the other, as those of the outputs do.
bool read_inputs(const Program& program, const std::map<std::string, std::size_t>& presents,
                 Decoder& decoder) {
  std::string dtype;
  std::size_t length_axis = 0;
  for (const Port& p : program.inputs) {
    const std::optional<std::string> cache = cache_of(p.onnx_name, "past");
    if (!cache) {
      const std::optional<DecoderRole> role = role_of(p);
      if (!role || decoder.has(*role)) return false;
      decoder.inputs.push_back({*role, p.dtype, rank(p)});
      continue;
    }
    const auto present = presents.find(*cache);
    if (present == presents.end()) return false;
    const auto sizes = empty_sizes(p, program.outputs[present->second], length_axis);
    if (!sizes) return false;
    if (decoder.caches.empty()) {
      decoder.inputs.push_back({DecoderRole::Past, p.dtype, rank(p)});
      decoder.present = present->second;
      decoder.length_axis = length_axis;
      dtype = p.dtype;
    } else if (decoder.inputs.back().role != DecoderRole::Past || p.dtype != dtype ||
               length_axis != decoder.length_axis || sizes->size() != decoder.caches[0].size() ||
               present->second != decoder.present + decoder.caches.size()) {
      return false;
    }
    decoder.caches.push_back(*sizes);
    decoder.of_states.push_back(cache->find(".encoder.") != std::string::npos);
  }
  const auto& of_states = decoder.of_states;
  if (of_states.empty() || of_states[0]) return false;  // the first says how many tokens there are
  // They come from the states once, which one file can only do where it is told when.
  const bool crossed = std::find(of_states.begin(), of_states.end(), true) != of_states.end();
  if (crossed != decoder.has(DecoderRole::States) ||
      (crossed && (!decoder.has(DecoderRole::UseCache) || decoder.has(DecoderRole::Mask))))
    return false;
  return decoder.has(DecoderRole::Tokens) && presents.size() == decoder.caches.size() &&
         !presents.empty() && find_weights(program, dtype, decoder);
}

}  // namespace

std::optional<Decoder> decoder_of(const Program& program, const std::set<std::string>& helpers) {
  Decoder decoder;
  // It takes the sum of a row's mask for the number of its tokens, from the first one on.
  decoder.padded = helpers.count("group_query_attention") == 0;
  std::map<std::string, std::size_t> presents;
  if (!read_outputs(program, decoder, presents) || !read_inputs(program, presents, decoder) ||
      has_methods(program))
    return std::nullopt;
  return decoder;
}

}  // namespace onnx2nn::structure
