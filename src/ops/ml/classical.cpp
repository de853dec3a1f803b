// ai.onnx.ml: classical machine learning.
// https://onnx.ai/onnx/operators/index.html#ai-onnx-ml
#include <algorithm>
#include <set>

#include "ops/lower.h"
#include "ops/ml/trees.h"
#include "ops/registry.h"

namespace onnx2nn::ops {
namespace {

using Strings = std::vector<std::string>;

// ---------------------------------------------------------------- shared parts

Dim batch_size(const NodeContext& c) {
  const Shape& s = c.shape(0);
  if (!s.has_rank() || s.rank() == 0) return {};
  // A vector is a batch of one.
  return s.rank() == 1 ? Dim(1) : s[0];
}

std::string checked_choice(const NodeContext& c, const std::string& name, const std::string& value,
                           std::initializer_list<const char*> choices) {
  if (std::none_of(choices.begin(), choices.end(),
                   [&](const char* choice) { return value == choice; }))
    c.fail("the " + name + " \"" + value + "\" is not known");
  return value;
}

std::string post_transform(const NodeContext& c) {
  return checked_choice(c, "post_transform", c.attr_string("post_transform", "NONE"),
                        {"NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"});
}

/// "NONE" is every helper's default.
void add_post_transform(Kwargs& kw, const std::string& value) {
  if (value != "NONE") kw.emplace_back("post_transform", Ex(value));
}

Ex string_list(const Strings& strings) {
  return list(std::vector<Ex>(strings.begin(), strings.end()));
}

/// A few strings where they are used, many in __init__.
Ex strings_constant(LowerContext& c, std::string_view hint, const Strings& strings) {
  return c.constant_value(hint, string_list(strings));
}

Ex floats_buffer(LowerContext& c, std::string_view hint, const std::vector<double>& values) {
  return c.buffer(hint,
                  float_tensor(DType::Float32, {static_cast<std::int64_t>(values.size())}, values));
}

std::vector<double> floats(const NodeContext& c, std::string_view name) {
  return c.attr_floats(name).value_or(std::vector<double>{});
}

/// The class labels of a classifier: strings or integers.
struct Labels {
  Labels(const NodeContext& c, std::string_view ints_name) {
    strings = c.attr_strings("classlabels_strings").value_or(Strings{});
    ints = c.attr_ints(ints_name).value_or(Ints{});
    are_strings = !strings.empty();
    count = are_strings ? strings.size() : ints.size();
  }
  DType dtype() const { return are_strings ? DType::String : DType::Int64; }
  Ex lower(LowerContext& c) const {
    return are_strings ? strings_constant(c, "classes", strings)
                       : c.buffer("classes", ir::Tensor::ints(ints));
  }
  Strings strings;
  Ints ints;
  bool are_strings = false;
  std::size_t count = 0;
};

/// Both outputs of a classifier: labels [N] and scores [N, columns].
void set_classes(InferContext& c, const Labels& labels, const Dim& columns) {
  c.set(0, labels.dtype(), Shape({batch_size(c)}));
  c.set(1, DType::Float32, Shape({batch_size(c), columns}));
}

bool all_positive(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double v) { return v >= 0; });
}

// ---------------------------------------------------------------- trees

Args tree_args(LowerContext& c, const Forest& f, Kwargs& kw) {
  if (f.mode) kw.emplace_back("mode", c.buffer("tree_mode", f.mode));
  if (f.missing) kw.emplace_back("missing", c.buffer("tree_missing", f.missing));
  if (f.members) {
    kw.emplace_back("members", c.buffer("tree_members", f.members));
    kw.emplace_back("member_row", c.buffer("tree_member_row", f.member_row));
  }
  kw.emplace_back("depth", Ex(f.depth));
  kw.emplace_back("modes", Ex(f.modes));
  return {c.in(0),
          c.buffer("tree_roots", f.roots),
          c.buffer("tree_feature", f.feature),
          c.buffer("tree_threshold", f.threshold),
          c.buffer("tree_child", f.child),
          c.buffer("leaf_target", f.target),
          c.buffer("leaf_weight", f.weight)};
}

void add_base_values(LowerContext& c, Kwargs& kw) {
  const auto base = floats_or_tensor(c, "base_values");
  if (base.empty()) return;
  kw.emplace_back(
      "base_values",
      c.buffer("base_values", float_tensor(dtype_of_floats(c, "base_values"),
                                           {static_cast<std::int64_t>(base.size())}, base)));
}

std::int64_t target_count(const NodeContext& c) {
  const std::int64_t n = c.attr_int("n_targets", 1);
  if (n < 1 || n > std::int64_t{1} << 24) c.fail("n_targets is " + std::to_string(n));
  return n;
}

void infer_tree_regressor(InferContext& c) {
  c.set(0, DType::Float32, Shape({batch_size(c), Dim(target_count(c))}));
}

void lower_tree_regressor(LowerContext& c) {
  const std::int64_t n = target_count(c);
  const Forest forest = pack_forest(c, "target", n);
  Kwargs kw;
  add_base_values(c, kw);
  const Args args = tree_args(c, forest, kw);
  kw.emplace_back("n_targets", Ex(n));
  const std::string aggregate =
      checked_choice(c, "aggregate_function", c.attr_string("aggregate_function", "SUM"),
                     {"SUM", "AVERAGE", "MIN", "MAX"});
  if (aggregate != "SUM") kw.emplace_back("aggregate_function", Ex(aggregate));
  add_post_transform(kw, post_transform(c));
  c.out(0, helper("tree_ensemble_regressor", args, kw));
}

void infer_tree_classifier(InferContext& c) {
  const Labels labels(c, "classlabels_int64s");
  set_classes(c, labels, Dim(static_cast<std::int64_t>(labels.count)));
}

void lower_tree_classifier(LowerContext& c) {
  const Labels labels(c, "classlabels_int64s");
  if (labels.count == 0) c.fail("it has no class labels");
  const Forest forest = pack_forest(c, "class", static_cast<std::int64_t>(labels.count));
  Kwargs kw;
  add_base_values(c, kw);
  Args args = tree_args(c, forest, kw);
  args.push_back(labels.lower(c));
  const std::set<std::int64_t> named(forest.targets.begin(), forest.targets.end());
  kw.emplace_back("binary", Ex(labels.count == 2 && named.size() == 1));
  kw.emplace_back("all_positive", Ex(all_positive(forest.weights)));
  add_post_transform(kw, post_transform(c));
  c.outs(helper("tree_ensemble_classifier", args, kw), 2);
}

void infer_tree_ensemble(InferContext& c) {
  c.set(0, ir::is_float(c.dtype(0)) ? c.dtype(0) : DType::Float32,
        Shape({batch_size(c), Dim(target_count(c))}));
}

void lower_tree_ensemble(LowerContext& c) {
  static constexpr const char* kAggregates[] = {"AVERAGE", "SUM", "MIN", "MAX"};
  // The specification has SOFTMAX before LOGISTIC; ONNX Runtime, whose answers count, does not.
  static constexpr const char* kTransforms[] = {"NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO",
                                                "PROBIT"};
  const std::int64_t aggregate = c.attr_int("aggregate_function", 1);
  const std::int64_t transform = c.attr_int("post_transform", 0);
  if (aggregate < 0 || aggregate > 3) c.fail("aggregate_function is " + std::to_string(aggregate));
  if (transform < 0 || transform > 4) c.fail("post_transform is " + std::to_string(transform));
  const std::int64_t n = target_count(c);
  Kwargs kw;
  const Args args = tree_args(c, pack_tree_ensemble(c, n), kw);
  kw.emplace_back("n_targets", Ex(n));
  if (aggregate != 1) kw.emplace_back("aggregate_function", Ex(kAggregates[aggregate]));
  add_post_transform(kw, kTransforms[transform]);
  c.out(0, helper("tree_ensemble", args, kw));
}

// ---------------------------------------------------------------- linear models

void infer_linear_regressor(InferContext& c) {
  c.set(0, DType::Float32, Shape({batch_size(c), Dim(c.attr_int("targets", 1))}));
}

void lower_linear_regressor(LowerContext& c) {
  const std::int64_t targets = c.attr_int("targets", 1);
  const auto coefficients = floats(c, "coefficients");
  if (targets < 1 || coefficients.empty() ||
      coefficients.size() % static_cast<std::size_t>(targets) != 0)
    c.fail(std::to_string(coefficients.size()) + " coefficients do not make " +
           std::to_string(targets) + " rows");
  Args args{c.in(0), floats_buffer(c, "coefficients", coefficients)};
  if (const auto intercepts = floats(c, "intercepts"); !intercepts.empty())
    args.push_back(floats_buffer(c, "intercepts", intercepts));
  Kwargs kw;
  if (targets != 1) kw.emplace_back("targets", Ex(targets));
  add_post_transform(kw, post_transform(c));
  c.out(0, helper("linear_regressor", args, kw));
}

void infer_linear_classifier(InferContext& c) {
  const Labels labels(c, "classlabels_ints");
  // One row of coefficients for two labels gives two columns.
  set_classes(c, labels, labels.count >= 2 ? Dim(static_cast<std::int64_t>(labels.count)) : Dim());
}

void lower_linear_classifier(LowerContext& c) {
  c.ignore_attr("multi_class");
  const Labels labels(c, "classlabels_ints");
  const auto coefficients = floats(c, "coefficients");
  if (coefficients.empty()) c.fail("it has no coefficients");
  const auto intercepts = floats(c, "intercepts");
  Kwargs kw;
  add_post_transform(kw, post_transform(c));
  const Ex y = helper(
      "linear_classifier",
      {c.in(0), floats_buffer(c, "coefficients", coefficients),
       intercepts.empty() ? kNone : floats_buffer(c, "intercepts", intercepts), labels.lower(c)},
      kw);
  c.outs(y, 2);
}

// ---------------------------------------------------------------- support vectors

void add_kernel(LowerContext& c, Kwargs& kw) {
  const std::string kernel =
      checked_choice(c, "kernel_type", c.attr_string("kernel_type", "LINEAR"),
                     {"LINEAR", "POLY", "RBF", "SIGMOID"});
  const auto params = floats(c, "kernel_params");
  if (kernel != "LINEAR") kw.emplace_back("kernel_type", Ex(kernel));
  if (!params.empty() && kernel != "LINEAR") {
    if (params.size() != 3)
      c.fail("kernel_params has " + std::to_string(params.size()) + " numbers, not 3");
    kw.emplace_back("kernel_params", Ex(params));
  }
}

void infer_svm_regressor(InferContext& c) {
  c.set(0, DType::Float32, Shape({batch_size(c), Dim(1)}));
}

void lower_svm_regressor(LowerContext& c) {
  c.ignore_attr("post_transform");  // so does ONNX Runtime
  const std::int64_t supports = c.attr_int("n_supports", 0);
  const auto vectors = floats(c, "support_vectors");
  const auto rho = floats(c, "rho");
  if (rho.empty()) c.fail("rho is missing");
  Args args{c.in(0), floats_buffer(c, "coefficients", floats(c, "coefficients")),
            floats_buffer(c, "rho", rho)};
  Kwargs kw;
  if (supports > 0) {
    if (vectors.empty() || vectors.size() % static_cast<std::size_t>(supports) != 0)
      c.fail("support_vectors make no " + std::to_string(supports) + " rows");
    args.push_back(floats_buffer(c, "support_vectors", vectors));
    kw.emplace_back("n_supports", Ex(supports));
  }
  add_kernel(c, kw);
  if (const std::int64_t one_class = c.attr_int("one_class", 0); one_class != 0)
    kw.emplace_back("one_class", Ex(one_class));
  c.out(0, helper("svm_regressor", args, kw));
}

void infer_svm_classifier(InferContext& c) {
  const Labels labels(c, "classlabels_ints");
  c.set(0, labels.dtype(), Shape({batch_size(c)}));
  c.set(1, DType::Float32, Shape({batch_size(c), Dim()}));
}

void lower_svm_classifier(LowerContext& c) {
  const Labels labels(c, "classlabels_ints");
  const auto coefficients = floats(c, "coefficients");
  const auto rho = floats(c, "rho");
  const auto vectors = floats(c, "support_vectors");
  const Ints per_class = c.attr_ints("vectors_per_class").value_or(Ints{});
  const auto prob_a = floats(c, "prob_a");
  const auto prob_b = floats(c, "prob_b");
  if (labels.count == 0) c.fail("it has no class labels");
  if (rho.empty()) c.fail("rho is missing");
  Args args{c.in(0), floats_buffer(c, "coefficients", coefficients), floats_buffer(c, "rho", rho),
            labels.lower(c)};
  Kwargs kw;
  if (!per_class.empty() && !vectors.empty()) {
    const std::size_t pairs = labels.count * (labels.count - 1) / 2;
    if (per_class.size() != labels.count)
      c.fail("vectors_per_class has not one number for each class");
    if (std::any_of(per_class.begin(), per_class.end(), [](std::int64_t n) { return n < 0; }))
      c.fail("vectors_per_class holds a negative number");
    if (rho.size() < pairs) c.fail("rho has too few numbers");
    args.push_back(floats_buffer(c, "support_vectors", vectors));
    kw.emplace_back("vectors_per_class", Ex(per_class));
    if (!prob_a.empty()) {
      if (prob_a.size() < pairs || prob_b.size() < pairs)
        c.fail("prob_a or prob_b has too few numbers");
      kw.emplace_back("prob_a", floats_buffer(c, "prob_a", prob_a));
      kw.emplace_back("prob_b", floats_buffer(c, "prob_b", prob_b));
    }
  } else if (all_positive(coefficients)) {
    kw.emplace_back("all_positive", true);
  }
  add_kernel(c, kw);
  add_post_transform(kw, post_transform(c));
  c.outs(helper("svm_classifier", args, kw), 2);
}

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

constexpr std::string_view kMl = "ai.onnx.ml";

constexpr OpDef kOps[] = {
    {.type = "TreeEnsemble",
     .domain = kMl,
     .changed_at = {5},
     .infer = infer_tree_ensemble,
     .lower = lower_tree_ensemble},
    {.type = "TreeEnsembleRegressor",
     .domain = kMl,
     .changed_at = {1, 3},
     .infer = infer_tree_regressor,
     .lower = lower_tree_regressor},
    {.type = "TreeEnsembleClassifier",
     .domain = kMl,
     .changed_at = {1, 3},
     .infer = infer_tree_classifier,
     .lower = lower_tree_classifier},
    {.type = "LinearRegressor",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_linear_regressor,
     .lower = lower_linear_regressor},
    {.type = "LinearClassifier",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_linear_classifier,
     .lower = lower_linear_classifier},
    {.type = "SVMRegressor",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_svm_regressor,
     .lower = lower_svm_regressor},
    {.type = "SVMClassifier",
     .domain = kMl,
     .changed_at = {1},
     .infer = infer_svm_classifier,
     .lower = lower_svm_classifier},
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

std::span<const OpDef> ml_ops() {
  return kOps;
}

}  // namespace onnx2nn::ops
