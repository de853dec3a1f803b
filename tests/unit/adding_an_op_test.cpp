// Follows docs/adding-an-op.md: an operator of its own, from the row of its table to the source.
#include <gtest/gtest.h>

#include "emit/python.h"
#include "onnx/reader.h"
#include "structure/structure.h"
#include "ops/context.h"
#include "ops/lower.h"
#include "ops/op.h"
#include "support/wire_builder.h"

namespace onnx2nn::ops {
namespace {

using namespace test;  // NOLINT: the builder's functions

void infer_scale(InferContext& c) {
  c.set(0, c.dtype(0), c.shape(0));
}

void lower_scale(LowerContext& c) {
  c.out(0, aten("mul.Scalar", {c.in(0), Ex(c.attr_float("factor", 1.0))}));
}

constexpr OpDef kScaleOps[] = {
    {.type = "Scale",
     .domain = "my.domain",
     .changed_at = {1},
     .infer = infer_scale,
     .lower = lower_scale},
};

struct Converted {
  Diagnostics diagnostics;
  std::unique_ptr<ir::Model> model;
  std::string source;
};

Converted convert(const std::vector<Message>& attributes) {
  GraphParts g;
  g.inputs = {value_info("x", 1, {"batch", "3"})};
  g.outputs = {value_info("y", 1, {"batch", "3"})};
  g.nodes = {node("Scale", {"x"}, {"y"}, attributes, "my.domain")};
  Message m = model(g.build());
  m.message(8, opset("my.domain", 1));
  Converted out;
  out.model = onnx::read_model(InputFile::from_memory(m.str()), {}, out.diagnostics);
  ir::for_each_node(*out.model->graph, [](ir::Node& n) {
    if (n.is(kScaleOps[0].type, kScaleOps[0].domain)) n.op = &kScaleOps[0];
  });
  infer_graph(*out.model->graph, out.diagnostics);
  LowerOptions options;
  options.class_name = "Net";
  torch::Program program = Lowering(*out.model, options, out.diagnostics).run();
  if (!out.diagnostics.has_errors())
    out.source = emit::print_python(structure::structured(std::move(program), {}).program, {});
  return out;
}

TEST(AddingAnOp, BecomesSource) {
  const Converted c = convert({attr_float("factor", 2.5F)});
  EXPECT_FALSE(c.diagnostics.has_errors()) << c.diagnostics.text("model");
  EXPECT_EQ(c.model->graph->output(0)->type.str(), "f32[batch, 3]");
  EXPECT_NE(c.source.find("return x * 2.5\n"), std::string::npos) << c.source;
}

TEST(AddingAnOp, DefaultOfAnAttribute) {
  const Converted c = convert({});
  EXPECT_NE(c.source.find("return x * 1.0\n"), std::string::npos) << c.source;
}

TEST(AddingAnOp, AnAttributeThatNobodyReadIsAnError) {
  const Converted c = convert({attr_float("factor", 2), attr_int("mode", 1)});
  ASSERT_TRUE(c.diagnostics.has_errors());
  EXPECT_NE(c.diagnostics.text("model").find("mode"), std::string::npos);
}

TEST(OpTable, RowsAreWhole) {
  std::vector<std::pair<std::string_view, std::string_view>> names;
  for (const auto family : all_families()) {
    for (const OpDef& op : family) {
      SCOPED_TRACE(std::string(op.domain) + "::" + std::string(op.type));
      EXPECT_NE(op.infer, nullptr);
      EXPECT_EQ(op.lower == nullptr, op.other_layout);
      EXPECT_EQ(find_op(op.domain, op.type), &op) << "the table has it twice";
      EXPECT_GE(op.changed_at[0], 1);
      for (std::size_t i = 1; i < op.changed_at.size(); ++i) {
        // Ascending, and zeros only at the end.
        EXPECT_TRUE(op.changed_at[i] == 0 || op.changed_at[i] > op.changed_at[i - 1]);
      }
    }
  }
  EXPECT_EQ(find_op("", "NoSuchOperator"), nullptr);
  EXPECT_EQ(find_op("no.such.domain", "Relu"), nullptr);
}

}  // namespace
}  // namespace onnx2nn::ops
