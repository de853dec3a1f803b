// com.microsoft GroupQueryAttention as a person writes it: the decoders of onnxruntime-genai.
#include <vector>

#include "ops/microsoft/microsoft.h"
#include "ops/microsoft/plain_attention.h"
#include "ops/onnx/rotary.h"

namespace onnx2nn::ops {
namespace {

// Inputs of GroupQueryAttention.
enum : std::size_t {
  kQuery,
  kKey,
  kValue,
  kPastKey,
  kPastValue,
  kLastPlaces,  // of each row's last token
  kTotal,
  kCos,
  kSin,
  kPositions,
  kBias,
  kHeadSink,
  kKeyScale,
  kValueScale,
  kQueryNorm,
  kKeyNorm,
  kQueryLengths,
};

/// Whether the cache holds numbers as they are, and scores are what torch's attention makes of them.
bool is_plain(const NodeContext& c) {
  for (const std::size_t i : {kBias, kHeadSink, kKeyScale, kValueScale, kQueryLengths})
    if (c.has_input(i)) return false;
  for (const std::size_t i : {kPastKey, kPastValue})
    if (!c.has_input(i) || c.dtype(i) != c.dtype(kQuery)) return false;
  return c.has_input(kKey) == c.has_input(kValue) && !c.has_output(3) &&
         c.attr_float("softcap", 0.0) == 0.0 && c.attr_int("smooth_softmax", 0) != 1 &&
         c.attr_int("sliding_window_cache", 0) == 0 && c.attr_int("qk_output", 0) == 0 &&
         c.attr_string("k_quant_type", "NONE") == "NONE" &&
         c.attr_string("v_quant_type", "NONE") == "NONE";
}

class Grouped {
 public:
  Grouped(LowerContext& c, std::int64_t size, std::int64_t pairs)
      : c_(c), heads_(c.attr_int("num_heads")), kv_heads_(c.attr_int("kv_num_heads")), size_(size),
        pairs_(pairs), length_(size_of(kQuery, 1)),
        room_(c.shared(op("max", {c.int_scalar(kTotal), size_of(kPastKey, 2)}), "room", "int")) {}

  void lower() {
    split();
    normalise(q_, kQueryNorm, "q_norm", "q_norm_epsilon");
    normalise(k_, kKeyNorm, "k_norm", "k_norm_epsilon");
    find_places();
    if (pairs_ > 0) turn();
    const Ex keys = appended(kPastKey, k_, 1, "keys");
    const Ex values = appended(kPastValue, v_, 2, "values");
    Kwargs kw{{"attn_mask", mask()}};
    if (const double scale = c_.attr_float("scale", 0.0); scale != 0.0)
      kw.emplace_back("scale", Ex(scale));
    if (heads_ != kv_heads_) kw.emplace_back("enable_gqa", Ex(true));
    const Ex y = c_.let(aten("scaled_dot_product_attention", {q_, keys, values}, kw), "attention");
    c_.out(0, aten("flatten.using_ints", {aten("transpose.int", {y, 1, 2}), 2}));
  }

 private:
  void split() {
    if (c_.has_input(kKey)) {
      q_ = c_.let(split_heads(c_.in(kQuery), heads_), "q");
      k_ = c_.let(split_heads(c_.in(kKey), kv_heads_), "k");
      v_ = c_.let(split_heads(c_.in(kValue), kv_heads_), "v");
    } else {
      const Ex qkv = c_.let(split_heads(c_.in(kQuery), heads_ + 2 * kv_heads_), "qkv");
      const Ints parts{heads_, kv_heads_, kv_heads_};
      const auto all = c_.lets(aten("split_with_sizes", {qkv, Ex(parts), 1}), {"q", "k", "v"});
      q_ = all[0];
      k_ = all[1];
      v_ = all[2];
    }
  }

  void normalise(Ex& x, std::size_t weight, const char* stem, const char* epsilon) {
    if (!c_.has_input(weight)) return;
    const Ex eps(c_.attr_float(epsilon, c_.attr_float("qk_norm_epsilon", static_cast<double>(1e-6F))));
    if (c_.weight(weight))
      if (const auto y = c_.module("RMSNorm", {Ex(size_)}, {{"eps", eps}},
                                   {{.name = "weight", .value = c_.input(weight)}}, {x}, stem)) {
        x = c_.let(*y, std::string(1, stem[0]));
        return;
      }
    x = c_.let(aten("rms_norm", {x, list({Ex(size_)}), c_.in(weight), eps}), std::string(1, stem[0]));
  }

  /// The tokens' places in the cache: behind what is there, or first in a prompt, whose shorter rows are padded behind.
  void find_places() {
    const Ex last = aten("reshape", {c_.in(kLastPlaces), list({Ex(-1), Ex(1)})});
    const Ex first = aten("clamp", {aten("add.Tensor", {last, op("-", {Ex(1), length_})}), Ex(0)});
    places_ = c_.shared(aten("add.Tensor", {first, arange(length_)}), "places");
  }

  void turn() {
    const Ex at = c_.has_input(kPositions) ? c_.in(kPositions) : places_;
    const Ex cos = shared_angles(c_, c_.in(kCos), at, "cos");
    const Ex sin = shared_angles(c_, c_.in(kSin), at, "sin");
    const bool interleaved = c_.attr_int("rotary_interleaved", 0) != 0;
    q_ = c_.let(rotated(q_, cos, sin, size_, pairs_, interleaved), "q");
    k_ = c_.let(rotated(k_, cos, sin, size_, pairs_, interleaved), "k");
  }

  Ex appended(std::size_t past, const Ex& now, std::size_t output, const char* hint) {
    const Ex all = helper("append_to_cache", {c_.in(past), now, places_, room_});
    if (!c_.has_output(output)) return c_.let(all, hint);
    c_.out(output, all);
    return c_.result(output);
  }

  /// Which keys a query sees.
  Ex mask() {
    const Ex slots = arange(room_);
    const std::int64_t window = c_.attr_int("local_window_size", -1);
    const Ex own = aten("unsqueeze", {places_, -1});
    Ex seen = aten("le.Tensor", {slots, own});
    if (c_.attr_int("causal", 1) == 0)
      seen = aten("le.Tensor", {slots, aten("reshape", {c_.in(kLastPlaces), list({Ex(-1), Ex(1), Ex(1)})})});
    if (window > 0)
      seen = aten("bitwise_and.Tensor",
                  {seen, aten("gt.Tensor", {slots, aten("sub.Scalar", {own, Ex(window)})})});
    return c_.shared(aten("unsqueeze", {seen, 1}), "mask");
  }

  /// Said by an input of the model where it can be, so that all layers say the same.
  Ex size_of(std::size_t input, std::size_t axis) {
    const auto known = c_.integer(dim_of(c_.shape(input), axis));
    return known ? *known : c_.dim(input, static_cast<std::int64_t>(axis));
  }

  Ex arange(const Ex& end) {
    return aten("arange", {end}, {{"device", op(".device", {c_.in(kLastPlaces)})}});
  }

  LowerContext& c_;
  const std::int64_t heads_, kv_heads_, size_, pairs_;
  const Ex length_;
  const Ex room_;  // a cache that is given may have room for more tokens than there are
  Ex q_, k_, v_, places_;
};

}  // namespace

bool lower_plain_group_query(LowerContext& c) {
  const std::int64_t heads = c.attr_int("num_heads");
  const std::int64_t kv_heads = c.attr_int("kv_num_heads");
  const Dim width = dim_of(c.shape(kQuery), 2);
  if (!is_plain(c) || c.rank(kQuery) != 3U || heads <= 0 || kv_heads <= 0 || !width.is_const())
    return false;
  const std::int64_t parts = c.has_input(kKey) ? heads : heads + 2 * kv_heads;
  if (width.value() % parts != 0) return false;
  const std::int64_t size = width.value() / parts;
  std::int64_t pairs = 0;
  if (c.attr_int("do_rotary", 0) != 0) {
    if (!c.has_input(kCos) || !c.has_input(kSin)) return false;
    const Dim columns = dim_of(c.shape(kCos), 1);
    if (!knows_rotary(Dim(size), columns)) return false;
    pairs = columns.value();
  }
  c.ignore_attr("kv_cache_bit_width");
  Grouped(c, size, pairs).lower();
  return true;
}

}  // namespace onnx2nn::ops
