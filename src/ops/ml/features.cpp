// Columns of features, their encodings and maps, as ai.onnx.ml has them.
// https://onnx.ai/onnx/operators/index.html#ai-onnx-ml
#include <algorithm>
#include <set>

#include "ops/lower.h"
#include "ops/ml/scores.h"
#include "ops/ml/trees.h"
#include "ops/registry.h"

namespace onnx2nn::ops {

namespace {

// ---------------------------------------------------------------- columns

void infer_to_float(InferContext& c) {
  c.set(0, DType::Float32, c.shape(0));
}

void lower_scaler(LowerContext& c) {
  const auto offset = floats(c, "offset");
  const auto scale = floats(c, "scale");
  if (offset.empty() || scale.empty()) c.fail("offset and scale are required");
  c.out(0, helper("feature_scaler",
                  {c.in(0), floats_buffer(c, "offset", offset), floats_buffer(c, "scale", scale)}));
}

void lower_normalizer(LowerContext& c) {
  const std::string norm =
      checked_choice(c, "norm", c.attr_string("norm", "MAX"), {"MAX", "L1", "L2"});
  c.out(0, helper("feature_normalizer", {c.in(0)}, {{"norm", Ex(norm)}}));
}

void infer_same(InferContext& c) {
  c.set(0, c.type(0));
}

void lower_imputer(LowerContext& c) {
  const bool is_float = ir::is_float(c.dtype(0));
  const auto values = floats(c, "imputed_value_floats");
  const Ints ints = c.attr_ints("imputed_value_int64s").value_or(Ints{});
  const double replaced = c.attr_float("replaced_value_float", 0.0);
  const std::int64_t replaced_int = c.attr_int("replaced_value_int64", 0);
  if (is_float ? values.empty() : ints.empty()) c.fail("it has no values to put in");
  const Ex given = is_float ? floats_buffer(c, "imputed_values", values)
                            : c.buffer("imputed_values", ir::Tensor::ints(ints));
  c.out(0, helper("imputer", {c.in(0), given},
                  {{"replaced_value", is_float ? Ex(replaced) : Ex(replaced_int)}}));
}

void lower_binarizer(LowerContext& c) {
  c.out(0, helper("feature_binarizer", {c.in(0)},
                  {{"threshold", Ex(c.attr_float("threshold", 0.0))}}));
}

void infer_feature_vectorizer(InferContext& c) {
  Dim width(0);
  for (const std::int64_t n : c.attr_ints("inputdimensions").value_or(Ints{}))
    width = width + Dim(n);
  c.set(0, DType::Float32, Shape({batch_size(c), width}));
}

void lower_feature_vectorizer(LowerContext& c) {
  const Ints sizes = c.attr_ints("inputdimensions").value_or(Ints{});
  if (sizes.size() != c.input_count()) c.fail("inputdimensions has not one number for each input");
  Args inputs;
  for (std::size_t i = 0; i < c.input_count(); ++i) inputs.push_back(c.in(i));
  c.out(0, helper("feature_vectorizer", {list(inputs)}, {{"inputdimensions", Ex(sizes)}}));
}

void infer_array_feature_extractor(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank() || s.rank() == 0) return c.set(0, c.dtype(0));
  Dims dims = s.dims();
  dims.back() = c.shape(1).element_count();
  if (dims.size() == 1) dims.insert(dims.begin(), Dim(1));
  c.set(0, c.dtype(0), Shape(std::move(dims)));
}

void lower_array_feature_extractor(LowerContext& c) {
  c.out(0, helper("array_feature_extractor", {c.in(0), c.in(1)}));
}

// ---------------------------------------------------------------- categories

void infer_one_hot(InferContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank()) return c.set(0, DType::Float32);
  Dims dims = s.dims();
  const auto strings = c.attr_strings("cats_strings").value_or(Strings{});
  const Ints ints = c.attr_ints("cats_int64s").value_or(Ints{});
  dims.emplace_back(static_cast<std::int64_t>(strings.empty() ? ints.size() : strings.size()));
  c.set(0, DType::Float32, Shape(std::move(dims)));
}

void lower_one_hot(LowerContext& c) {
  const auto strings = c.attr_strings("cats_strings").value_or(Strings{});
  const Ints ints = c.attr_ints("cats_int64s").value_or(Ints{});
  const Ex categories = strings.empty() ? c.buffer("categories", ir::Tensor::ints(ints))
                                        : strings_constant(c, "categories", strings);
  Kwargs kw;
  if (const std::int64_t zeros = c.attr_int("zeros", 1); zeros == 0)
    kw.emplace_back("zeros", Ex(zeros));
  c.out(0, helper("one_hot_encoder", {c.in(0), categories}, kw));
}

/// One side of a LabelEncoder: strings, or a tensor of numbers.
struct Table {
  Table(const NodeContext& c, const std::string& side) {
    if (const auto t = c.attr_tensor(side + "_tensor")) {
      tensor = t;
      if (t->dtype() == DType::String) strings = t->strings();
    } else if (const auto s = c.attr_strings(side + "_strings"); s && !s->empty()) {
      strings = *s;
      tensor = std::make_shared<ir::Tensor>(
          std::vector<std::int64_t>{static_cast<std::int64_t>(s->size())}, *s);
    } else if (const auto i = c.attr_ints(side + "_int64s"); i && !i->empty()) {
      tensor = ir::Tensor::ints(*i);
    } else if (const auto f = c.attr_floats(side + "_floats"); f && !f->empty()) {
      tensor = float_tensor(DType::Float32, {static_cast<std::int64_t>(f->size())}, *f);
    } else {
      c.fail("its " + side + " are missing");
    }
  }
  DType dtype() const { return tensor->dtype(); }
  Ex lower(LowerContext& c, const char* hint) const {
    if (dtype() == DType::String) return strings_constant(c, hint, strings);
    return c.buffer(hint, tensor->rank() == 1 ? tensor : tensor->reshaped({tensor->size()}));
  }
  ir::TensorPtr tensor;
  Strings strings;
};

void infer_label_encoder(InferContext& c) {
  if (c.opset() < 2)
    return c.set(0, c.dtype(0) == DType::String ? DType::Int64 : DType::String, c.shape(0));
  c.set(0, Table(c, "values").dtype(), c.shape(0));
}

void lower_label_encoder(LowerContext& c) {
  const std::string default_string = c.attr_string("default_string", "_Unused");
  const std::int64_t default_int = c.attr_int("default_int64", -1);
  const double default_float = c.attr_float("default_float", -0.0);
  if (c.opset() < 2) {
    // The position of a string, or the string at a position.
    const Ex classes =
        strings_constant(c, "classes", c.attr_strings("classes_strings").value_or(Strings{}));
    if (c.dtype(0) == DType::String)
      return c.out(
          0, helper("label_encoder", {c.in(0), classes, kNone}, {{"default", Ex(default_int)}}));
    return c.out(
        0, helper("label_encoder", {c.in(0), kNone, classes}, {{"default", Ex(default_string)}}));
  }
  const Table keys(c, "keys");
  const Table values(c, "values");
  if (keys.tensor->size() != values.tensor->size()) c.fail("it has not as many values as keys");
  Ex otherwise = values.dtype() == DType::String ? Ex(default_string)
                 : ir::is_float(values.dtype())  ? Ex(default_float)
                                                 : Ex(default_int);
  if (const auto t = c.attr_tensor("default_tensor"); t && t->size() >= 1)
    otherwise = t->dtype() == DType::String ? Ex(t->string_at(0)) : number(*t);
  c.out(0, helper("label_encoder", {c.in(0), keys.lower(c, "keys"), values.lower(c, "values")},
                  {{"default", otherwise}}));
}

void infer_category_mapper(InferContext& c) {
  c.set(0, c.dtype(0) == DType::String ? DType::Int64 : DType::String, c.shape(0));
}

void lower_category_mapper(LowerContext& c) {
  const auto strings = c.attr_strings("cats_strings").value_or(Strings{});
  const Ints ints = c.attr_ints("cats_int64s").value_or(Ints{});
  if (strings.size() != ints.size()) c.fail("cats_strings and cats_int64s differ in length");
  Kwargs kw;
  if (c.has_attr("default_int64"))
    kw.emplace_back("default_int64", Ex(c.attr_int("default_int64")));
  if (c.has_attr("default_string"))
    kw.emplace_back("default_string", Ex(c.attr_string("default_string", "")));
  c.out(0, helper("category_mapper",
                  {c.in(0), strings_constant(c, "categories", strings),
                   c.buffer("category_numbers", ir::Tensor::ints(ints))},
                  kw));
}

// ---------------------------------------------------------------- maps, which are dicts

DType map_value_dtype(const NodeContext& c) {
  const Type& t = c.type(0);
  return t.kind == Type::Kind::Map && t.element ? t.element->dtype : DType::Float32;
}

Ex int_keys(const Ints& keys) {
  return Ex(keys);
}

void infer_dict_vectorizer(InferContext& c) {
  const auto strings = c.attr_strings("string_vocabulary").value_or(Strings{});
  const Ints ints = c.attr_ints("int64_vocabulary").value_or(Ints{});
  c.set(0, map_value_dtype(c),
        Shape({Dim(1),
               Dim(static_cast<std::int64_t>(strings.empty() ? ints.size() : strings.size()))}));
}

void lower_dict_vectorizer(LowerContext& c) {
  const auto strings = c.attr_strings("string_vocabulary").value_or(Strings{});
  const Ints ints = c.attr_ints("int64_vocabulary").value_or(Ints{});
  const Ex vocabulary =
      c.constant_value("vocabulary", strings.empty() ? int_keys(ints) : string_list(strings));
  const DType dtype = map_value_dtype(c);
  Kwargs kw;
  if (dtype != DType::Float32) kw.emplace_back("dtype", dtype == DType::String ? kNone : Ex(dtype));
  c.out(0, helper("dict_vectorizer", {c.in(0), vocabulary}, kw));
}

void infer_zip_map(InferContext& c) {
  const Labels labels(c, "classlabels_int64s");
  c.set(0, Type::sequence(Type::map(labels.dtype(), Type::tensor(DType::Float32, Shape(Dims{})))));
}

void lower_zip_map(LowerContext& c) {
  const Labels labels(c, "classlabels_int64s");
  const Ex names = labels.are_strings ? string_list(labels.strings) : int_keys(labels.ints);
  c.out(0, helper("zip_map", {c.in(0), c.constant_value("class_names", names)}));
}

DType cast_map_dtype(const NodeContext& c) {
  const std::string to = checked_choice(c, "cast_to", c.attr_string("cast_to", "TO_FLOAT"),
                                        {"TO_FLOAT", "TO_INT64", "TO_STRING"});
  return to == "TO_FLOAT" ? DType::Float32 : to == "TO_INT64" ? DType::Int64 : DType::String;
}

void infer_cast_map(InferContext& c) {
  const bool dense = c.attr_string("map_form", "DENSE") == "DENSE";
  c.set(0, cast_map_dtype(c), Shape({Dim(1), dense ? Dim() : Dim(c.attr_int("max_map", 1))}));
}

void lower_cast_map(LowerContext& c) {
  cast_map_dtype(c);
  const std::string form =
      checked_choice(c, "map_form", c.attr_string("map_form", "DENSE"), {"DENSE", "SPARSE"});
  Kwargs kw{{"cast_to", Ex(c.attr_string("cast_to", "TO_FLOAT"))}};
  const std::int64_t size = c.attr_int("max_map", 1);
  if (form == "SPARSE") {
    kw.emplace_back("map_form", Ex(form));
    kw.emplace_back("max_map", Ex(size));
  }
  c.out(0, helper("cast_map", {c.in(0)}, kw));
}

constexpr OpDef kFeaturesOps[] = {
    {.type = "Scaler",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_to_float,
     .lower = lower_scaler},
    {.type = "Normalizer",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_to_float,
     .lower = lower_normalizer},
    {.type = "Imputer",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_same,
     .lower = lower_imputer},
    {.type = "Binarizer",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_same,
     .lower = lower_binarizer},
    {.type = "FeatureVectorizer",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_feature_vectorizer,
     .lower = lower_feature_vectorizer},
    {.type = "ArrayFeatureExtractor",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_array_feature_extractor,
     .lower = lower_array_feature_extractor},
    {.type = "OneHotEncoder",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_one_hot,
     .lower = lower_one_hot},
    {.type = "LabelEncoder",
     .domain = kMl,
     .changed_at = {1, 2, 4},
     .infer = infer_label_encoder,
     .lower = lower_label_encoder},
    {.type = "CategoryMapper",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_category_mapper,
     .lower = lower_category_mapper},
    {.type = "DictVectorizer",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_dict_vectorizer,
     .lower = lower_dict_vectorizer},
    {.type = "ZipMap",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_zip_map,
     .lower = lower_zip_map},
    {.type = "CastMap",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_cast_map,
     .lower = lower_cast_map},
};

}  // namespace

std::span<const OpDef> feature_ops() {
  return kFeaturesOps;
}

}  // namespace onnx2nn::ops
