// com.microsoft: BeamSearch, GreedySearch and Sampling, whose decoders (and encoder) are nested graphs.
// https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
// The graphs become functions inside forward, which a helper's loop calls.
#include "ops/microsoft/microsoft.h"
#include "ops/onnx/pass_on.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

constexpr std::int64_t kEncoderDecoder = 1;  // model_type; 0 is a decoder alone

Dim scalar_dim(const NodeContext& c, std::size_t i) {
  const auto v = c.contents(i);
  return v && v->size() == 1 ? (*v)[0] : Dim();
}

/// Infers the nested graphs. Their sizes are those of the search, not those outside that have the
/// same names.
void infer_graphs(InferContext& c) {
  for (const char* name : {"encoder", "init_decoder", "decoder"}) {
    if (!c.has_attr(name)) continue;
    ir::Graph& graph = *c.attr_graph(name);
    for (ir::Value* v : graph.inputs)
      for (Dim& d : v->type.shape.dims())
        if (!d.is_const()) d = Dim();
    c.infer_graph(graph);
  }
}

void infer_beam_search(InferContext& c) {
  infer_graphs(c);
  const Dim batch = dim_of(c.shape(0), 0);
  c.set(0, DType::Int32, Shape({batch, scalar_dim(c, 4), scalar_dim(c, 1)}));
  c.set(1, DType::Float32, Shape({batch, scalar_dim(c, 4)}));
}

void infer_greedy_search(InferContext& c) {
  infer_graphs(c);
  c.set(0, DType::Int32, Shape({dim_of(c.shape(0), 0), scalar_dim(c, 1)}));
}

Ex float_scalar(LowerContext& c, std::size_t i, double otherwise) {
  if (!c.has_input(i)) return Ex(otherwise);
  if (const auto v = c.const_number(i)) return Ex(*v);
  return op("float", {c.in(i)});
}

Ex int_or(LowerContext& c, std::size_t i, std::int64_t otherwise) {
  return c.has_input(i) ? c.int_scalar(i) : Ex(otherwise);
}

/// cache= and dtype= of a decoder's states, [2, batch, heads, length, size] each.
void add_cache(LowerContext& c, Kwargs& kw) {
  const ir::Graph& decoder = *c.attr_graph("decoder");
  constexpr std::size_t kFirst = 3;  // after input_ids, position_ids and attention_mask
  if (decoder.inputs.size() <= kFirst) c.unsupported("a decoder without a cache is not supported");
  const Type& past = decoder.inputs[kFirst]->type;
  if (!past.shape.has_rank() || past.shape.rank() != 5 || !past.shape[2].is_const() ||
      !past.shape[4].is_const())
    c.unsupported(
        "the decoder's cache must be [2, batch, heads, length, size] with fixed heads and size");
  kw.emplace_back("cache", torch::tuple({Ex(decoder.inputs.size() - kFirst),
                                         Ex(past.shape[2].value()), Ex(past.shape[4].value())}));
  kw.emplace_back("dtype", Ex(past.dtype));
}

Ex optional_function(LowerContext& c, std::string_view name) {
  return c.has_attr(name) ? nested_function(c, name) : kNone;
}

void ignore_hints(LowerContext& c) {
  for (const char* name : {"model_type", "vocab_size", "decoder_start_token_id"})
    c.ignore_attr(name);
}

bool starts_with(const ir::Value* v, std::string_view prefix) {
  return v->name.starts_with(prefix);
}

void lower_beam_search(LowerContext& c) {
  ignore_hints(c);
  if (c.has_output(2)) c.unsupported("the scores of every step are not supported");
  require_absent(c, 8, "prefix_vocab_mask");
  require_absent(c, 10, "decoder_input_ids");
  require_absent(c, 11, "logits_processor");
  const std::int64_t type = c.attr_int("model_type", 0);
  if (type != 0 && type != kEncoderDecoder)
    c.unsupported("a search over this type of model is not supported");
  Kwargs kw = pass_attributes(c, {{"eos_token_id"}, {"pad_token_id"}});
  Args args;
  if (type == kEncoderDecoder) {
    const ir::Graph& decoder = *c.attr_graph("decoder");
    const bool takes_ids =
        decoder.inputs.size() > 1 && starts_with(decoder.inputs[1], "encoder_input_ids");
    const std::size_t after_mask = takes_ids ? 3 : 2;
    const bool takes_states = decoder.inputs.size() > after_mask &&
                              starts_with(decoder.inputs[after_mask], "encoder_hidden_states");
    args = {nested_function(c, "encoder"), nested_function(c, "decoder")};
    kw.emplace_back("decoder_start_token_id", Ex(c.attr_int("decoder_start_token_id", -1)));
    if (takes_ids) kw.emplace_back("takes_ids", Ex(true));
    if (takes_states) kw.emplace_back("takes_states", Ex(true));
  } else {
    args = {nested_function(c, "decoder"), optional_function(c, "init_decoder")};
    add_cache(c, kw);
    for (auto& k : pass_attributes(c, {{"vocab_size"}})) kw.push_back(k);
  }
  for (auto& k : pass_attributes(c, {{"no_repeat_ngram_size"}, {"early_stopping"}}))
    kw.push_back(k);
  args.push_back(c.in(0));
  args.push_back(c.int_scalar(1));
  args.push_back(int_or(c, 2, 0));
  args.push_back(c.int_scalar(3));
  args.push_back(c.int_scalar(4));
  args.push_back(float_scalar(c, 5, 1.0));
  args.push_back(float_scalar(c, 6, 1.0));
  if (c.has_input(7) || c.has_input(9)) args.push_back(c.in(7));
  if (c.has_input(9)) args.push_back(c.in(9));
  outs_of(c,
          helper(type == kEncoderDecoder ? "beam_search_encoder_decoder" : "beam_search_decoder",
                 args, kw),
          2);
}

/// GreedySearch and Sampling, which choose the next token differently: `more` says how.
void lower_search(LowerContext& c, const char* function, const Kwargs& more) {
  ignore_hints(c);
  require_int(c, "model_type", 0);
  require_absent(c, 5, "prefix_vocab_mask");
  Kwargs kw;
  Args args{nested_function(c, "decoder"),
            optional_function(c, "init_decoder"),
            c.in(0),
            c.int_scalar(1),
            int_or(c, 2, 0),
            float_scalar(c, 3, 1.0)};
  add_cache(c, kw);
  for (auto& k : pass_attributes(
           c, {{"eos_token_id"}, {"pad_token_id"}, {"vocab_size"}, {"no_repeat_ngram_size"}}))
    kw.push_back(k);
  kw.insert(kw.end(), more.begin(), more.end());
  if (c.has_input(4) || c.has_input(6)) args.push_back(c.in(4));
  if (c.has_input(6)) args.push_back(c.in(6));
  c.out(0, helper(function, args, kw));
}

void lower_greedy_search(LowerContext& c) {
  lower_search(c, "greedy_search_decoder", {});
}

/// Without a seed the draws are torch's own.
void lower_sampling(LowerContext& c) {
  require_absent(c, 7, "presence_mask");
  c.ignore_attr("presence_penalty");  // of what presence_mask lists
  if (c.has_output(1)) c.unsupported("the scores that were drawn from are not supported");
  Kwargs more = pass_attributes(c, {{"top_p", AttrKind::Float},
                                    {"temperature", AttrKind::Float},
                                    {"min_tokens_to_keep"},
                                    {"filter_value", AttrKind::Float},
                                    {"custom"}});
  if (c.has_input(8)) more.emplace_back("seed", c.int_scalar(8));
  lower_search(c, "sampling_decoder", more);
}

constexpr OpDef kGenerationOps[] = {
    {.type = "BeamSearch",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_beam_search,
     .lower = lower_beam_search},
    {.type = "GreedySearch",
     .domain = kMicrosoft,
     .changed_at = {1},
     .infer = infer_greedy_search,
     .lower = lower_greedy_search},
    {.type = "Sampling",
     .domain = kMicrosoft,
     .changed_at = {1},
     .nondeterministic = true,
     .infer = infer_greedy_search,
     .lower = lower_sampling},
};

}  // namespace

std::span<const OpDef> microsoft_generation_ops() {
  return kGenerationOps;
}

}  // namespace onnx2nn::ops
