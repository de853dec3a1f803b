// Rules as graphs before and after; what they compute is compared with ONNX Runtime in
// tests/numeric/test_simplify.py.
#include "passes/passes.h"

#include <gtest/gtest.h>

#include "ops/op.h"

namespace onnx2nn {
namespace {

/// A graph of float32 values under construction.
struct Builder {
  ir::Model model;
  ir::Graph& g = *model.graph;
  Builder() { model.info.opsets[""] = 17; }

  ir::Value* input(const std::string& name, ir::Dims dims) {
    ir::Value* v = g.new_value(name);
    v->is_graph_input = true;
    v->type = ir::Type::tensor(ir::DType::Float32, ir::Shape(std::move(dims)));
    g.inputs.push_back(v);
    return v;
  }
  ir::Value* weight(const std::string& name, std::vector<std::int64_t> dims, float value) {
    std::size_t n = 1;
    for (const std::int64_t d : dims) n *= static_cast<std::size_t>(d);
    return g.add_initializer(
        name,
        ir::Tensor::from<float>(ir::DType::Float32, std::move(dims), std::vector<float>(n, value)),
        true);
  }
  ir::Value* node(const std::string& op, const std::vector<ir::Value*>& inputs) {
    const std::vector<std::string> names = {op + std::to_string(count_++)};
    ir::Node* n = g.add_node(op, "", inputs, names);
    n->opset = 17;
    n->op = ops::find_op("", op);
    return n->output(0);
  }
  void output(ir::Value* v) { g.add_output(v, "y" + std::to_string(g.output_count()), {}); }

  /// The operators that are left, in order.
  std::string simplified(passes::Options options = {.change_weights = true}) {
    Diagnostics diagnostics;
    passes::simplify(model, options, diagnostics, counts);
    std::string out;
    for (const ir::Node* n = g.first(); n != nullptr; n = n->next())
      out += (out.empty() ? "" : " ") + n->op_type;
    return out;
  }
  std::map<std::string, std::size_t> counts;

 private:
  int count_ = 0;
};

TEST(Inference, WhatItRefusesIsNotRewritten) {
  Builder b;
  ir::Value* x = b.input("x", {2, 3});
  ir::Value* y = b.node("Add", {x, b.weight("w", {4}, 0)});  // [2, 3] and [4] do not broadcast
  b.output(b.node("Relu", {b.node("Relu", {y})}));
  EXPECT_EQ(b.simplified(), "Add Relu");
  EXPECT_TRUE(b.g.first()->unsound);
}

TEST(Simplify, MovesABiasIntoTheConvolution) {
  Builder b;
  ir::Value* c = b.node("Conv", {b.input("x", {1, 3, 8, 8}), b.weight("w", {4, 3, 3, 3}, 1)});
  b.output(b.node("Add", {c, b.weight("k", {4, 1, 1}, 2)}));
  EXPECT_EQ(b.simplified(), "Conv");
  EXPECT_EQ(b.g.first()->input(2)->constant->to_doubles(), std::vector<double>(4, 2.0));
}

TEST(Simplify, LeavesAnAuthorsWeightsAloneForConversion) {
  Builder b;
  b.model.info.producer_name = "pytorch";
  ir::Value* c = b.node("Conv", {b.input("x", {1, 3, 8, 8}), b.weight("w", {4, 3, 3, 3}, 1)});
  b.output(b.node("Add", {c, b.weight("k", {4, 1, 1}, 2)}));
  EXPECT_EQ(b.simplified(passes::for_conversion()), "Conv Add");
  b.model.info.producer_name = "tf2onnx";  // whose convolutions have no bias
  EXPECT_EQ(b.simplified(passes::for_conversion()), "Conv");
}

TEST(Simplify, LeavesASharedWeightAlone) {
  Builder b;
  ir::Value* x = b.input("x", {1, 4, 8, 8});
  ir::Value* w = b.weight("w", {4, 4, 1, 1}, 1);
  ir::Value* c = b.node("Conv", {x, w});
  b.output(b.node("Mul", {c, b.weight("k", {4, 1, 1}, 2)}));
  b.output(b.node("Conv", {b.node("Relu", {x}), w}));
  EXPECT_EQ(b.simplified(), "Conv Mul Relu Conv");
}

TEST(Simplify, MergesNodesThatComputeTheSame) {
  Builder b;
  ir::Value* x = b.input("x", {2, 2});
  b.output(b.node("Add", {b.node("Relu", {x}), b.node("Relu", {x})}));
  EXPECT_EQ(b.simplified(), "Relu Add");
  EXPECT_EQ(b.counts.at("merge-equal-nodes"), 1U);
}

TEST(Simplify, MergesShapeArithmeticThatComesToTheSame) {
  Builder b;
  ir::Value* x = b.input("x", {ir::Dim::symbol("n"), 8});
  b.output(b.node("Shape", {b.node("Relu", {x})}));
  b.output(b.node("Shape", {b.node("Abs", {x})}));
  EXPECT_EQ(b.simplified(), "Relu Shape");
}

TEST(Simplify, StopsAfterTheNumberOfRewritesThatItIsGiven) {
  Builder b;
  ir::Value* v = b.input("x", {2, 2});
  for (int i = 0; i < 3; ++i) v = b.node("Identity", {v});
  b.output(b.node("Relu", {v}));
  std::vector<std::pair<std::string, std::string>> log;
  passes::Options options{.change_weights = true};
  options.stop_after = 2;
  options.log = &log;
  EXPECT_EQ(b.simplified(options), "Identity Relu");
  EXPECT_EQ(log.size(), 2U);
}

TEST(Graph, KeepsUsesInOrderAsOutputsAreAddedOneByOne) {
  Builder b;
  ir::Value* x = b.input("x", {2});
  ir::Value* y = b.node("Relu", {x});
  for (int i = 0; i < 9; ++i) b.output(i % 2 == 0 ? x : y);
  ASSERT_EQ(b.g.output_count(), 9U);
  EXPECT_EQ(x->uses().size(), 6U);  // Relu's and five outputs
  for (const ir::Use* u : y->uses()) EXPECT_EQ(b.g.return_node()->input(u->index), y);
  y->replace_all_uses(x);
  EXPECT_FALSE(y->has_uses());
  for (std::size_t i = 0; i < 9; ++i) EXPECT_EQ(b.g.output(i), x);
}

TEST(Simplify, HeedsDisabledRules) {
  Builder b;
  b.output(b.node("Relu", {b.node("Identity", {b.input("x", {2})})}));
  passes::Options options{.change_weights = true};
  options.disabled = {"fold-identity"};
  EXPECT_EQ(b.simplified(options), "Identity Relu");
}

TEST(Simplify, SaysWhyARuleLeftANodeAloneWhereItIsAsked) {
  Builder b;
  ir::Value* x = b.input("x", {1, 4, 8, 8});
  ir::Value* w = b.weight("w", {4, 4, 1, 1}, 1);
  b.output(b.node("Mul", {b.node("Conv", {x, w}), b.weight("k", {4, 1, 1}, 2)}));
  b.output(b.node("Conv", {b.node("Relu", {x}), w}));
  std::vector<passes::Miss> misses;
  passes::Options options{.change_weights = true};
  options.why_not = {"fuse-arithmetic"};
  options.misses = &misses;
  b.simplified(options);
  ASSERT_EQ(misses.size(), 1U);
  EXPECT_EQ(misses[0].rule, "fuse-arithmetic");
  EXPECT_EQ(misses[0].node, "Mul");
  EXPECT_EQ(misses[0].reason, "the weight w has other users");
}

}  // namespace
}  // namespace onnx2nn
