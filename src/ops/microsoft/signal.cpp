// com.microsoft: words, signals, and paths through them.
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
#include "ops/microsoft/microsoft.h"
#include "ops/onnx/pass_on.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

void infer_word_conv(InferContext& c) {
  c.set(0, DType::Float32, Shape({dim_of(c.shape(0), 0), dim_of(c.shape(1), 0)}));
}

void lower_word_conv(LowerContext& c) {
  for (const char* name : {"char_embedding_size", "conv_window_size", "embedding_size"})
    c.ignore_attr(name);  // the weights' shapes say them
  c.out(0, helper("word_conv_embedding", pass_inputs(c, 0, 4)));
}

/// Tokenizer: words along a new last axis, unless there is nothing to take apart.
void infer_tokenizer(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, DType::String);
  if (s.rank() != 1 && s.rank() != 2)
    c.fail("its input has rank " + std::to_string(s.rank()) + ", not 1 or 2");
  Dims out = s.dims();
  for (const Dim& d : s.dims())
    if (!d.is_const() || d.value() < 1) return c.set(0, DType::String);
  out.emplace_back();
  c.set(0, DType::String, Shape(std::move(out)));
}

/// The ends of a match are found by trying where the text could end, so that nothing may ask for
/// its end.
void check_pattern(const NodeContext& c, const std::string& pattern) {
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const bool escaped = pattern[i] == '\\' && i + 1 < pattern.size();
    const std::string_view two = std::string_view(pattern).substr(i, 2);
    if (pattern[i] == '$' || two == "\\b" || two == "\\B" || two == "\\z")
      c.unsupported("a pattern that asks for the end of a word or text is not supported");
    if (escaped) ++i;
  }
}

void lower_tokenizer(LowerContext& c) {
  const auto separators = c.attr_strings("separators");
  const std::string expression = c.attr_string("tokenexp", "");
  if (separators.has_value() == !expression.empty())
    c.fail("it needs either separators or tokenexp");
  if (c.attr_int("mincharnum") < 1) c.fail("mincharnum must be positive");
  if (separators)
    for (const std::string& s : *separators) check_pattern(c, s);
  check_pattern(c, expression);
  c.out(0, helper("tokenizer", {c.in(0)},
                  pass_attributes(c, {{"mincharnum"},
                                      {"pad_value", AttrKind::String},
                                      {"mark"},
                                      {"separators", AttrKind::StringList},
                                      {"tokenexp", AttrKind::String}})));
}

void infer_attention_lstm(InferContext& c) {
  infer_lstm_outputs(c, 2);
}

void lower_attention_lstm(LowerContext& c) {
  for (std::size_t i = 8; i < 12; ++i)
    if (!c.has_input(i)) c.unsupported("without all of QW, MW, V and M it is not known");
  outs_of(c, helper("attention_lstm", pass_inputs(c, 0, 14), lstm_attributes(c)), 3);
}

void infer_rfft(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  if (s.rank() == 0) c.fail("its input is a scalar");
  Dims out = s.dims();
  out.back() = out.back().known() ? Dim::floor_div(out.back(), Dim(2)) + Dim(1) : Dim();
  out.emplace_back(2);
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

void infer_irfft(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, c.dtype(0));
  if (s.rank() < 2) c.fail("its input needs an axis for the real and imaginary parts");
  Dims out(s.dims().begin(), s.dims().end() - 1);
  out.back() = out.back().known() ? (out.back() - Dim(1)) * Dim(2) : Dim();
  c.set(0, c.dtype(0), Shape(std::move(out)));
}

template <bool Inverse>
void lower_real_fft(LowerContext& c) {
  require_int(c, "onesided", 1);
  require_int(c, "normalized", 0);
  const std::int64_t axes = c.attr_int("signal_ndim", 1);
  const auto rank = static_cast<std::int64_t>(c.known_rank(0)) - (Inverse ? 1 : 0);
  if (axes < 1 || axes > rank) c.fail("signal_ndim must be between 1 and the rank");
  c.out(0,
        helper(Inverse ? "inverse_real_fft" : "real_fft", {c.in(0)}, {{"signal_ndim", Ex(axes)}}));
}

void infer_warping(InferContext& c) {
  c.set(0, DType::Int32, Shape({Dim(2), Dim()}));
}

void lower_warping(LowerContext& c) {
  c.out(0, helper("dynamic_time_warping", {c.in(0)}));
}

/// MurmurHash3: 32 bits from the bytes of each element.
void infer_murmur_hash(InferContext& c) {
  c.set(0, c.attr_int("positive", 1) != 0 ? DType::UInt32 : DType::Int32, c.shape(0));
}

void lower_murmur_hash(LowerContext& c) {
  const std::int64_t bits = ir::info(c.dtype(0)).bits;
  if (c.dtype(0) == DType::String || (bits != 32 && bits != 64))
    c.unsupported("only numbers of 32 and 64 bits can be hashed");
  c.out(0, helper("murmur_hash3", {c.in(0)}, pass_attributes(c, {{"positive"}, {"seed"}})));
}

constexpr OpDef kSignalOps[] = {
    {.type = "WordConvEmbedding",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_word_conv,
     .lower = lower_word_conv},
    {.type = "Tokenizer",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_tokenizer,
     .lower = lower_tokenizer},
    {.type = "AttnLSTM",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_attention_lstm,
     .lower = lower_attention_lstm},
    {.type = "Rfft",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_rfft,
     .lower = lower_real_fft<false>},
    {.type = "Irfft",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_irfft,
     .lower = lower_real_fft<true>},
    {.type = "DynamicTimeWarping",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_warping,
     .lower = lower_warping},
    {.type = "MurmurHash3",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_murmur_hash,
     .lower = lower_murmur_hash},
};

}  // namespace

std::span<const OpDef> microsoft_signal_ops() {
  return kSignalOps;
}

}  // namespace onnx2nn::ops
