// Operators on strings, which are numpy object arrays: torch has no strings.
// https://onnx.ai/onnx/operators/onnx__StringNormalizer.html and its neighbours.
#include "ops/lower.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

void infer_string_concat(InferContext& c) {
  c.set(0, DType::String, broadcast(c.shape(0), c.shape(1)));
}

void lower_string_concat(LowerContext& c) {
  c.out(0, helper("string_concat", {c.in(0), c.in(1)}));
}

void infer_string_split(InferContext& c) {
  const Shape& s = c.shape(0);
  Shape pieces;
  if (s.has_rank()) {
    Dims dims = s.dims();
    dims.emplace_back();
    pieces = Shape(std::move(dims));
  }
  c.set(0, DType::String, pieces);
  c.set(1, DType::Int64, s);
}

void lower_string_split(LowerContext& c) {
  Kwargs kw;
  if (c.has_attr("delimiter")) kw.emplace_back("delimiter", Ex(c.attr_string("delimiter", "")));
  if (c.has_attr("maxsplit")) kw.emplace_back("maxsplit", Ex(c.attr_int("maxsplit")));
  c.outs(helper("string_split", {c.in(0)}, kw), 2);
}

void infer_string_normalizer(InferContext& c) {
  const auto rank = c.rank(0);
  if (!rank) return c.set(0, DType::String);
  if (*rank != 1 && *rank != 2)
    c.fail("its input has rank " + std::to_string(*rank) + ", not 1 or 2");
  Dims dims = c.shape(0).dims();
  // Stop words are dropped.
  if (c.has_attr("stopwords")) dims.back() = Dim();
  c.set(0, DType::String, Shape(std::move(dims)));
}

void lower_string_normalizer(LowerContext& c) {
  Kwargs kw;
  if (c.has_attr("case_change_action"))
    kw.emplace_back("case_change_action", Ex(c.attr_string("case_change_action", "NONE")));
  if (c.has_attr("is_case_sensitive"))
    kw.emplace_back("is_case_sensitive", Ex(c.attr_int("is_case_sensitive")));
  if (c.has_attr("locale")) kw.emplace_back("locale", Ex(c.attr_string("locale", "en_US")));
  if (const auto words = c.attr_strings("stopwords")) {
    std::vector<Ex> items(words->begin(), words->end());
    // Few words read better where they are used.
    constexpr std::size_t kInPlace = 8;
    kw.emplace_back("stopwords", items.size() <= kInPlace
                                     ? list(items)
                                     : c.constant_value("stopwords", list(items)));
  }
  c.out(0, helper("string_normalizer", {c.in(0)}, kw));
}

void infer_regex(InferContext& c) {
  c.set(0, DType::Bool, c.shape(0));
}

void lower_regex(LowerContext& c) {
  c.out(0, helper("regex_full_match", {c.in(0)}, {{"pattern", Ex(c.attr_string("pattern", ""))}}));
}

// ---------------------------------------------------------------- TfIdfVectorizer

std::int64_t columns(const NodeContext& c) {
  const Ints indexes = c.attr_ints("ngram_indexes").value_or(Ints{});
  std::int64_t size = 0;
  for (const std::int64_t i : indexes) {
    if (i < 0 || i >= std::int64_t{1} << 31) c.fail("ngram_indexes holds " + std::to_string(i));
    size = std::max(size, i + 1);
  }
  return size;
}

void infer_tf_idf(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank() || s.rank() < 1) return c.set(0, DType::Float32);
  Dims dims = s.dims();
  dims.back() = Dim(columns(c));
  c.set(0, DType::Float32, Shape(std::move(dims)));
}

void lower_tf_idf(LowerContext& c) {
  const Ints indexes = c.attr_ints("ngram_indexes").value_or(Ints{});
  Args args{c.in(0)};
  std::size_t pool = 0;
  if (const auto words = c.attr_strings("pool_strings")) {
    args.push_back(c.constant_value("pool", list(std::vector<Ex>(words->begin(), words->end()))));
    pool = words->size();
  } else {
    const Ints numbers = c.attr_ints("pool_int64s").value_or(Ints{});
    args.push_back(c.buffer("pool", ir::Tensor::ints(numbers)));
    pool = numbers.size();
  }
  const Ints counts = c.attr_ints("ngram_counts").value_or(Ints{});
  std::size_t ngrams = 0;
  for (std::size_t n = 0; n < counts.size(); ++n) {
    const std::int64_t end =
        n + 1 < counts.size() ? counts[n + 1] : static_cast<std::int64_t>(pool);
    if (counts[n] < 0 || end < counts[n] || end > static_cast<std::int64_t>(pool) ||
        (end - counts[n]) % static_cast<std::int64_t>(n + 1) != 0)
      c.fail("ngram_counts does not divide the pool into n-grams");
    ngrams += static_cast<std::size_t>(end - counts[n]) / (n + 1);
  }
  if (ngrams != indexes.size())
    c.fail("ngram_indexes has " + std::to_string(indexes.size()) + " entries for " +
           std::to_string(ngrams) + " n-grams");
  args.push_back(c.buffer("ngram_indexes", ir::Tensor::ints(indexes)));
  if (const auto weights = c.attr_floats("weights")) {
    if (weights->size() != indexes.size()) c.fail("it has not one weight for each n-gram");
    const std::vector<float> narrow(weights->begin(), weights->end());
    args.push_back(c.buffer(
        "ngram_weights",
        ir::Tensor::from(DType::Float32, {static_cast<std::int64_t>(narrow.size())}, narrow)));
  }
  c.out(0, helper("tf_idf_vectorizer", args,
                  {{"mode", Ex(c.attr_string("mode", "TF"))},
                   {"ngram_counts", Ex(counts)},
                   {"min_gram_length", Ex(c.attr_int("min_gram_length"))},
                   {"max_gram_length", Ex(c.attr_int("max_gram_length"))},
                   {"max_skip_count", Ex(c.attr_int("max_skip_count"))},
                   {"size", Ex(columns(c))}}));
}

constexpr OpDef kTextOps[] = {
    {.type = "StringConcat",
     .changed_at = {20},
     .infer = infer_string_concat,
     .lower = lower_string_concat},
    {.type = "StringSplit",
     .changed_at = {20},
     .infer = infer_string_split,
     .lower = lower_string_split},
    {.type = "StringNormalizer",
     .changed_at = {10},
     .infer = infer_string_normalizer,
     .lower = lower_string_normalizer},
    {.type = "RegexFullMatch", .changed_at = {20}, .infer = infer_regex, .lower = lower_regex},
    {.type = "TfIdfVectorizer", .changed_at = {9}, .infer = infer_tf_idf, .lower = lower_tf_idf},
};

}  // namespace

std::span<const OpDef> text_ops() {
  return kTextOps;
}

}  // namespace onnx2nn::ops
