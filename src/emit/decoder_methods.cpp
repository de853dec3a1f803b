#include "emit/decoder_methods.h"

#include <string_view>
#include <utility>
#include <vector>

#include "emit/layout.h"
#include "support/text.h"

namespace onnx2nn::emit {
namespace {

using torch::Decoder;
using torch::DecoderInput;
using torch::DecoderRole;

constexpr std::size_t kMethod = 4;
constexpr std::size_t kBody = 8;

constexpr std::string_view kGenerateHead = R"(
    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
)";

constexpr std::string_view kMaskParameter = "        attention_mask: Tensor | None = None,\n";

constexpr std::string_view kStatesParameter = "        encoder_hidden_states: Tensor,\n";

constexpr std::string_view kStatesMaskParameter =
    "        encoder_attention_mask: Tensor | None = None,\n";

constexpr std::string_view kGenerateParameters = R"(        max_new_tokens: int = 20,
        eos_token_id: int | list[int] | None = None,
        pad_token_id: int = 0,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """
        input_ids and what follows them; a row that has ended goes on with pad_token_id.

        The likeliest token is next, or one that is drawn where the temperature is above 0.
)";

constexpr std::string_view kMaskDoc =
    "        Shorter prompts have padding in front, where attention_mask is 0.\n";

constexpr std::string_view kStatesDoc =
    "        The encoder's states are given for each row, in which a text begins with input_ids.\n";

constexpr std::string_view kStatesMaskDefault = R"(        if encoder_attention_mask is None:
            size = encoder_hidden_states.shape[:2]
            encoder_attention_mask = input_ids.new_ones(size)
)";

constexpr std::string_view kMaskDefault = R"(        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
)";

constexpr std::string_view kLoop = R"(        tokens, past = input_ids, self.empty_cache(input_ids.shape[0])
        ended = torch.zeros_like(input_ids[:, :1], dtype=torch.bool)
        for _ in range(max_new_tokens):
)";

constexpr std::string_view kChoice = R"(            scores = logits[:, -1].float()
            if temperature == 0.0:
                tokens = scores.argmax(dim=-1, keepdim=True)
            else:
                scores = scores / temperature
                if top_k is not None:
                    least = scores.topk(min(top_k, scores.shape[-1])).values[:, -1:]
                    scores[scores < least] = -torch.inf
                if top_p < 1.0:
                    ascending, order = scores.sort(dim=-1)
                    rest = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - top_p
                    rest[:, -1] = False
                    scores[rest.scatter(1, order, rest)] = -torch.inf
                likely = scores.softmax(dim=-1)
                tokens = torch.multinomial(likely, 1, generator=generator)
            tokens = tokens.masked_fill(ended, pad_token_id)
            input_ids = torch.cat([input_ids, tokens], dim=1)
)";

constexpr std::string_view kLongerMask = R"(            one = attention_mask.new_ones(tokens.shape)
            attention_mask = torch.cat([attention_mask, one], dim=1)
)";

constexpr std::string_view kEnd = R"(            if eos_token_id is not None:
                ends = torch.tensor(eos_token_id, device=tokens.device)
                ended = ended | torch.isin(tokens, ends)
            if ended.all():
                break
        return input_ids
)";

/// `x.int()`, of a tensor that is made as one of `dtype` at first.
std::string cast(const std::string& x, const std::string& dtype, std::string_view already) {
  if (dtype == already) return x;
  if (dtype == "int64") return x + ".long()";
  if (dtype == "int32") return x + ".int()";
  if (dtype == "bool") return x + ".bool()";
  return x + ".float()";
}

Text list_of(std::vector<Text> items) { return brackets("[", std::move(items), "]"); }

/// After how many elements the same come again.
template <typename T>
std::size_t period_of(const std::vector<T>& all) {
  std::size_t period = 1;
  const auto repeats = [&] {
    if (all.size() % period != 0) return false;
    for (std::size_t i = period; i < all.size(); ++i)
      if (all[i] != all[i - period]) return false;
    return true;
  };
  while (!repeats()) ++period;
  return period;
}

/// The empty caches, the shortest list that is repeated.
Text empty_caches(const Decoder& d) {
  const std::size_t count = d.caches.size();
  const std::size_t period = period_of(d.caches);
  std::vector<Text> items;
  for (std::size_t i = 0; i < period; ++i) {
    std::vector<Text> sizes;
    for (const std::string& size : d.caches[i]) sizes.push_back(atom(size));
    if (!d.cache_dtype.empty()) sizes.push_back(atom("dtype=torch." + d.cache_dtype));
    items.push_back(call("weight.new_zeros", std::move(sizes)));
  }
  Text all = list_of(std::move(items));
  if (period == count) return all;
  return atom(all.flat() + " * " + std::to_string(count / period));
}

std::string empty_cache(const Decoder& d) {
  std::string out =
      "\n    def empty_cache(self, batch: int) -> list[Tensor]:\n"
      "        \"\"\"Keys and values of no token.\"\"\"\n";
  out += d.of_parameters ? "        weight = next(self.parameters())\n"
                         : "        weight = next(self.buffers())\n";
  return out + statement_text(kBody, "return ", empty_caches(d), "");
}

/// What is given for an input, from `tokens`, `past` and `attention_mask`.
std::string argument(const DecoderInput& i) {
  switch (i.role) {
    case DecoderRole::Tokens: return cast("tokens", i.dtype, "int64");
    case DecoderRole::Mask: return cast("attention_mask", i.dtype, "int64");
    case DecoderRole::Positions: return cast("positions", i.dtype, "int64");
    case DecoderRole::TokenTypes:
      return "torch.zeros_like(" + cast("tokens", i.dtype, "int64") + ")";
    case DecoderRole::UseCache: return "use_cache";
    case DecoderRole::KeptLogits: return "kept";
    case DecoderRole::Past: return "*past";
    case DecoderRole::States: return "encoder_hidden_states";
    case DecoderRole::StatesMask: return cast("encoder_attention_mask", i.dtype, "int64");
  }
  return "";
}

/// What was computed of the states stays what the first step made of it.
std::string kept_caches(const Decoder& d) {
  std::string out = "        if past[0].shape[" + std::to_string(d.length_axis) + "] > 0:\n";
  const std::size_t period = period_of(d.of_states);
  for (std::size_t i = 0; i < period; ++i) {
    if (!d.of_states[i]) continue;
    const std::string places = period == d.caches.size()
                                   ? "[" + std::to_string(i) + "]"
                                   : "[" + std::to_string(i) + "::" + std::to_string(period) + "]";
    out += "            present" + places + " = past" + places + "\n";
  }
  return out;
}

std::string step(const Decoder& d) {
  const bool mask = d.has(DecoderRole::Mask);
  std::vector<Text> params{atom("self"), atom("tokens: Tensor"), atom("past: list[Tensor]")};
  if (mask) params.push_back(atom("attention_mask: Tensor"));
  const bool states = d.has(DecoderRole::States);
  if (states) params.push_back(atom("encoder_hidden_states: Tensor"));
  if (d.has(DecoderRole::StatesMask)) params.push_back(atom("encoder_attention_mask: Tensor"));
  Text head = brackets("step(", std::move(params), ") -> tuple[Tensor, list[Tensor]]");
  std::string out = "\n" + statement_text(kMethod, "def ", head, ":");
  out += "        \"\"\"Logits of what follows the tokens, and the cache with them";
  out += mask ? "; the mask is of all so far.\"\"\"\n" : ".\"\"\"\n";
  std::vector<Text> args;
  for (const DecoderInput& i : d.inputs) {
    const std::string before = "past[0].shape[" + std::to_string(d.length_axis) + "]";
    if (i.role == DecoderRole::Positions && mask && i.rank == 2) {
      out += "        positions = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)\n"
             "        positions = positions[:, -tokens.shape[1] :]\n";
    } else if (i.role == DecoderRole::Positions) {
      out += "        positions = torch.arange(tokens.shape[1], device=tokens.device)\n"
             "        positions = positions + " +
             before + "\n";
      if (i.rank == 2) out += "        positions = positions.expand(tokens.shape)\n";
    } else if (i.role == DecoderRole::UseCache) {
      const std::string value = before + " > 0";
      out += "        use_cache = torch.tensor(" + (i.rank == 1 ? "[" + value + "]" : value) +
             ", device=tokens.device)\n";
    } else if (i.role == DecoderRole::KeptLogits) {
      std::string value = i.rank == 1 ? "[1]" : "1";
      if (i.dtype == "int32") value += ", dtype=torch.int32";
      out += "        kept = torch.tensor(" + value + ", device=tokens.device)\n";
    }
    args.push_back(atom(argument(i)));
  }
  const std::size_t end = d.present + d.caches.size();
  const bool plain = d.logits == 0 && d.present == 1 && end == d.outputs;
  const std::string last = end == d.outputs ? "" : std::to_string(end);
  std::string logits = "logits";
  std::string caches = states ? "present" : "past";
  out += statement_text(kBody, plain ? "logits, *" + caches + " = " : "outputs = ",
                        call("self", std::move(args)), "");
  if (!plain) {
    logits = "outputs[" + std::to_string(d.logits) + "]";
    const std::string list =
        "list(outputs[" + std::to_string(d.present) + ":" + last + "])";
    if (states) out += "        present = " + list + "\n";
    if (!states) caches = list;
  }
  if (states) out += kept_caches(d);
  return out + "        return " + logits + ", " + caches + "\n";
}

std::string generate(const Decoder& d) {
  const bool mask = d.has(DecoderRole::Mask);
  std::string out(kGenerateHead);
  const bool states = d.has(DecoderRole::States);
  const bool states_mask = d.has(DecoderRole::StatesMask);
  if (mask) out += kMaskParameter;
  if (states) out += kStatesParameter;
  if (states_mask) out += kStatesMaskParameter;
  out += kGenerateParameters;
  if (mask && d.padded) out += kMaskDoc;
  if (states) out += kStatesDoc;
  out += "        \"\"\"\n";
  if (mask) out += kMaskDefault;
  if (states_mask) out += kStatesMaskDefault;
  out += kLoop;
  std::vector<Text> given{atom("tokens"), atom("past")};
  if (mask) given.push_back(atom("attention_mask"));
  if (states) given.push_back(atom("encoder_hidden_states"));
  if (states_mask) given.push_back(atom("encoder_attention_mask"));
  out += statement_text(kBody + 4, "logits, past = ", call("self.step", std::move(given)), "");
  out += kChoice;
  if (mask) out += kLongerMask;
  return out.append(kEnd);
}

}  // namespace

std::string decoder_methods(const Decoder& decoder) {
  return empty_cache(decoder) + step(decoder) + generate(decoder);
}

}  // namespace onnx2nn::emit
