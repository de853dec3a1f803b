// What a file says is bounded at the source: elements of tensors, depths of expressions.
#include <gtest/gtest.h>

#include <string>

#include "ir/tensor.h"
#include "support/error.h"
#include "torch/expr.h"

namespace onnx2nn {
namespace {

TEST(Tensor, ReadsNoElementThatIsNotThere) {
  const auto empty = ir::Tensor::ints({});
  EXPECT_THROW(empty->at<std::int64_t>(0), Error);
  EXPECT_THROW(empty->int_at(0), Error);
  EXPECT_THROW(empty->double_at(0), Error);
  const auto two = ir::Tensor::ints({1, 2});
  EXPECT_EQ(two->int_at(1), 2);
  EXPECT_THROW(two->int_at(2), Error);
  EXPECT_THROW(two->int_at(-1), Error);
  const ir::Tensor words({1}, {"a"});
  EXPECT_EQ(words.string_at(0), "a");
  EXPECT_THROW(words.string_at(1), Error);
}

TEST(Tensor, HasNoMoreDimensionsThanTorch) {
  EXPECT_THROW(ir::Tensor::from<float>(ir::DType::Float32, std::vector<std::int64_t>(65, 1), {1}),
               Error);
}

TEST(Expr, NestsOnlySoDeep) {
  torch::Ex e(1);
  const auto nest = [&](int times) {
    for (int i = 0; i < times; ++i) e = torch::op("neg", {e});
  };
  nest(400);
  try {
    nest(1000);
    FAIL() << "there is no limit";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), "too-large");
  }
}

}  // namespace
}  // namespace onnx2nn
