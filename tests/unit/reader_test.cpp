// The reader against models that no library would write: truncated, lying, hostile.
#include "onnx/reader.h"

#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <limits>

#include <gtest/gtest.h>

#include "onnx2nn/convert.h"
#include "support/error.h"
#include "support/wire_builder.h"

namespace onnx2nn {
namespace {

using namespace test;  // NOLINT: the builder's functions
namespace fs = std::filesystem;

std::unique_ptr<ir::Model> read(const Message& m, const std::string& folder = "") {
  Diagnostics diagnostics;
  return onnx::read_model(InputFile::from_memory(m.str()), {.folder = folder}, diagnostics);
}

/// The message of the Error that reading gives; empty where it gives none.
std::string error_of(const Message& m, const std::string& folder = "") {
  try {
    read(m, folder);
    return "";
  } catch (const Error& e) {
    EXPECT_FALSE(e.code().empty());
    return e.message();
  }
}

testing::AssertionResult fails_with(const Message& m, const std::string& what,
                                    const std::string& folder = "") {
  const std::string message = error_of(m, folder);
  if (message.empty()) return testing::AssertionFailure() << "was read";
  if (message.find(what) == std::string::npos) return testing::AssertionFailure() << message;
  return testing::AssertionSuccess();
}

GraphParts small() {
  GraphParts g;
  g.inputs = {value_info("x", 1, {"N", "3"})};
  g.initializers = {float_tensor("w", {3}, {1, 2, 3})};
  g.nodes = {node("Add", {"x", "w"}, {"h"}), node("Relu", {"h"}, {"y"})};
  g.outputs = {value_info("y", 1, {"N", "3"})};
  return g;
}

/// x -> `nodes` -> y, all float32 of shape [2].
GraphParts chain(std::vector<Message> nodes) {
  GraphParts g;
  g.inputs = {value_info("x", 1, {"2"})};
  g.outputs = {value_info("y", 1, {"2"})};
  g.nodes = std::move(nodes);
  return g;
}

/// The value of a tensor that a graph holds as its only initialiser.
ir::TensorPtr tensor_of(const Message& tensor) {
  GraphParts g;
  g.initializers = {tensor};
  const auto m = read(model(g.build()));
  return m->graph->initializers.at(0)->constant;
}

TEST(Reader, SmallModel) {
  const auto m = read(model(small().build()));
  const ir::Graph& g = *m->graph;
  ASSERT_EQ(g.node_count(), 2U);
  EXPECT_EQ(g.first()->op_type, "Add");
  EXPECT_EQ(g.first()->opset, 17);
  EXPECT_EQ(g.inputs.at(0)->type.str(), "f32[N, 3]");
  EXPECT_EQ(g.first()->input(1)->constant->to_doubles(), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(g.output(0), g.last()->output(0));
  EXPECT_EQ(m->opset(""), 17);
}

// The graph comes last, so that nothing that was cut off is a model.
TEST(Reader, EveryTruncatedPrefix) {
  const std::string whole = model(small().build()).str();
  for (std::size_t n = 0; n < whole.size(); ++n)
    EXPECT_NE(error_of(Message::of(whole.substr(0, n))), "") << n;
}

TEST(Reader, EveryTruncatedPrefixOfTheGraph) {
  const std::string whole = small().build().str();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    const Conversion c = convert_bytes(
        Message().varint(1, 8).message(8, opset("", 17)).bytes(7, whole.substr(0, n)).str(), {});
    (void)c.diagnostics_text();
  }
}

TEST(Reader, EveryFlippedByteOnlyGivesDiagnostics) {
  const std::string whole = model(small().build()).str();
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const int flip : {0x01, 0x80, 0xFF}) {
      std::string damaged = whole;
      damaged[i] =
          static_cast<char>(static_cast<unsigned char>(damaged[i]) ^ static_cast<unsigned>(flip));
      const Conversion c = convert_bytes(damaged, {});
      for (const auto& d : c.diagnostics())
        EXPECT_NE(d.code, "internal") << d.message << " at byte " << i;
    }
  }
}

TEST(Reader, PackedAndUnpackedNumbers) {
  const std::vector<std::int64_t> values{0,
                                         -1,
                                         1,
                                         300,
                                         std::numeric_limits<std::int64_t>::min(),
                                         std::numeric_limits<std::int64_t>::max()};
  for (const bool packed_dims : {false, true}) {
    for (const bool packed_data : {false, true}) {
      Message t;
      packed_dims ? t.packed(1, {2, 3}) : t.unpacked(1, {2, 3});
      t.varint(2, 7).bytes(8, "t");
      packed_data ? t.packed(7, values) : t.unpacked(7, values);
      const auto tensor = tensor_of(t);
      EXPECT_EQ(tensor->dims(), (std::vector<std::int64_t>{2, 3}));
      EXPECT_EQ(tensor->to_ints(), values);
    }
  }
}

TEST(Reader, FloatsPackedUnpackedAndInPieces) {
  const auto head = [] { return Message().packed(1, {4}).varint(2, 1).bytes(8, "t"); };
  for (const Message& t :
       {head().packed_floats(4, {1, 2, 3, 4}), head().f32(4, 1).f32(4, 2).f32(4, 3).f32(4, 4),
        head().packed_floats(4, {1, 2}).packed_floats(4, {3, 4}),
        head().packed_floats(4, {1, 2, 3}).f32(4, 4)})
    EXPECT_EQ(tensor_of(t)->to_doubles(), (std::vector<double>{1, 2, 3, 4}));
}

TEST(Reader, NumbersInInt32Data) {
  // bool, float16 (bits), int8, bfloat16 (bits)
  EXPECT_EQ(tensor_of(Message().packed(1, {3}).varint(2, 9).packed(5, {1, 0, 1}))->to_ints(),
            (std::vector<std::int64_t>{1, 0, 1}));
  EXPECT_EQ(tensor_of(Message().packed(1, {1}).varint(2, 10).packed(5, {0x3C00}))->to_doubles(),
            std::vector<double>{1});
  EXPECT_EQ(tensor_of(Message().packed(1, {2}).varint(2, 3).packed(5, {-1, 127}))->to_ints(),
            (std::vector<std::int64_t>{-1, 127}));
  EXPECT_EQ(tensor_of(Message().packed(1, {1}).varint(2, 16).packed(5, {0x3F80}))->to_doubles(),
            std::vector<double>{1});
}

TEST(Reader, SubByteTypes) {
  // uint4 1, 2, 15 and int4 1, -2, -1: low nibble first, the last byte half full.
  EXPECT_EQ(tensor_of(Message().packed(1, {3}).varint(2, 21).bytes(9, std::string("\x21\x0f", 2)))
                ->to_ints(),
            (std::vector<std::int64_t>{1, 2, 15}));
  EXPECT_EQ(tensor_of(Message().packed(1, {3}).varint(2, 22).bytes(9, std::string("\xe1\x0f", 2)))
                ->to_ints(),
            (std::vector<std::int64_t>{1, -2, -1}));
}

TEST(Reader, TensorsThatDoNotFitTheirDimensions) {
  const auto in_model = [](const Message& t) {
    GraphParts g;
    g.initializers = {t};
    return model(g.build());
  };
  const std::int64_t huge = std::int64_t{1} << 62U;
  for (const Message& t :
       {Message().packed(1, {3}).varint(2, 1).bytes(9, "abcd"),
        Message().packed(1, {1}).varint(2, 1).bytes(9, "abcdefgh"),
        Message().packed(1, {-1}).varint(2, 1), Message().packed(1, {huge, huge}).varint(2, 1),
        Message().packed(1, {huge}).varint(2, 1),
        Message().packed(1, {3}).varint(2, 7).packed(7, {1, 2}),
        Message().packed(1, {2}).varint(2, 0).bytes(9, "ab"),
        Message().packed(1, {2}).varint(2, 99).bytes(9, "ab"),
        Message().packed(1, {2}).varint(2, 1).bytes(4, "abcde"),
        Message().packed(1, {1}).varint(2, 8)})
    EXPECT_NE(error_of(in_model(t)), "");
}

TEST(Reader, LengthsThatLie) {
  for (const std::uint64_t n : {std::uint64_t{5}, std::uint64_t{1} << 31U,
                                (std::uint64_t{1} << 32U) + 1, ~std::uint64_t{0}}) {
    EXPECT_NE(error_of(Message().lying(7, n, "abcd")), "");
    EXPECT_NE(error_of(Message().message(7, Message().lying(1, n, "abcd"))), "");
    EXPECT_NE(error_of(Message().message(7, Message().message(5, Message().lying(9, n, "abcd")))),
              "");
  }
  // Field 0, groups, numbers of more than 64 bits.
  EXPECT_NE(error_of(Message().varint(0, 1)), "");
  EXPECT_NE(error_of(Message().tag(1, 3)), "");
  EXPECT_NE(error_of(Message().tag(1, 0).append(Message().bytes(1, "").bytes(1, ""))), "");
  EXPECT_NE(
      error_of(Message().tag(1, 0).raw(std::array<char, 11>{
          '\xff', '\xff', '\xff', '\xff', '\xff', '\xff', '\xff', '\xff', '\xff', '\xff', '\x01'})),
      "");
  EXPECT_NE(error_of(Message()), "");
}

TEST(Reader, UnknownFieldsArePassedOver) {
  Message m = model(small().build());
  m.varint(900, 5).bytes(901, "abc").f32(902, 1).f64(903, 2);
  EXPECT_EQ(error_of(m), "");
}

TEST(Reader, NestingHasALimit) {
  // One branch each, so that the file stays small.
  Message graph =
      GraphParts{{node("Identity", {"x"}, {"y"})}, {}, {value_info("y", 1, {"2"})}, {}, {}}.build();
  for (int i = 0; i < 2000; ++i)
    graph = GraphParts{
        {node("If", {"c"}, {"y"}, {attr_graph("then_branch", graph)})},
        {},
        {value_info("y", 1, {"2"})},
        {},
        {}}.build();
  EXPECT_TRUE(fails_with(model(graph), "nested too deeply"));
  Message type = tensor_type(1, {"2"});
  for (int i = 0; i < 2000; ++i) type = Message().message(4, Message().message(1, type));
  GraphParts g = small();
  g.inputs.push_back(Message().bytes(1, "s").message(2, type));
  EXPECT_TRUE(fails_with(model(g.build()), "nested too deeply"));
}

TEST(Reader, CycleUndefinedAndDuplicateNames) {
  EXPECT_TRUE(fails_with(model(chain({node("Add", {"x", "b"}, {"a"}),
                                      node("Add", {"x", "a"}, {"b"}), node("Relu", {"b"}, {"y"})})
                                   .build()),
                         "cycle"));
  EXPECT_TRUE(fails_with(model(chain({node("Add", {"x", "y"}, {"y"})}).build()), "cycle"));
  EXPECT_TRUE(fails_with(model(chain({node("Add", {"x", "nowhere"}, {"y"})}).build()), "nowhere"));
  EXPECT_TRUE(
      fails_with(model(chain({node("Relu", {"x"}, {"y"}), node("Neg", {"x"}, {"y"})}).build()),
                 "defined twice"));
  EXPECT_TRUE(fails_with(model(chain({node("Relu", {"x"}, {"x"})}).build()), "twice"));
  GraphParts g = small();
  g.inputs.push_back(value_info("x", 1, {"2"}));
  EXPECT_TRUE(fails_with(model(g.build()), "twice"));
  g = small();
  g.outputs.push_back(value_info("lost", 1, {"2"}));
  EXPECT_TRUE(fails_with(model(g.build()), "lost"));
}

TEST(Reader, NodesInAnyOrder) {
  const auto m =
      read(model(chain({node("Relu", {"h"}, {"y"}), node("Neg", {"x"}, {"h"})}).build()));
  EXPECT_EQ(m->graph->first()->op_type, "Neg");
  EXPECT_EQ(m->graph->last()->op_type, "Relu");
}

TEST(Reader, InitialisersThatAreInputs) {
  GraphParts g = small();
  g.inputs.push_back(value_info("w", 1, {"3"}));
  const auto m = read(model(g.build()));
  EXPECT_TRUE(m->graph->first()->input(1)->is_constant());
  const Conversion c = convert_bytes(model(g.build()).str(), {});
  ASSERT_TRUE(c.ok()) << c.diagnostics_text();
  EXPECT_EQ(c.inputs().size(), 1U);
}

TEST(Reader, ConstantForms) {
  const auto value_of = [](const Message& attribute) {
    GraphParts g =
        chain({node("Constant", {}, {"k"}, {attribute}), node("Identity", {"k"}, {"y"})});
    const auto m = read(model(g.build()));
    return m->graph->output(0)->producer()->input(0)->constant;
  };
  EXPECT_EQ(value_of(attr_int("value_int", -4))->to_ints(), std::vector<std::int64_t>{-4});
  EXPECT_EQ(value_of(attr_float("value_float", 1.5F))->to_doubles(), std::vector<double>{1.5});
  EXPECT_EQ(value_of(Message().bytes(1, "value_ints").packed(8, {1, 2}).varint(20, 7))->to_ints(),
            (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(value_of(Message().bytes(1, "value_ints").unpacked(8, {1, 2}).varint(20, 7))->to_ints(),
            (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(value_of(Message().bytes(1, "value_floats").packed_floats(7, {1, 2}).varint(20, 6))
                ->to_doubles(),
            (std::vector<double>{1, 2}));
  EXPECT_EQ(value_of(attr_string("value_string", "abc"))->strings(),
            std::vector<std::string>{"abc"});
  EXPECT_EQ(value_of(Message().bytes(1, "value_strings").bytes(9, "a").bytes(9, "b").varint(20, 8))
                ->strings(),
            (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(value_of(attr_tensor("value", float_tensor("", {2}, {3, 4})))->to_doubles(),
            (std::vector<double>{3, 4}));
  // A sparse one: the value 7 at index 2 of 4.
  const Message sparse = Message()
                             .message(1, float_tensor("v", {1}, {7}))
                             .message(2, Message().packed(1, {1}).varint(2, 7).packed(7, {2}))
                             .packed(3, {4});
  EXPECT_EQ(
      value_of(Message().bytes(1, "sparse_value").message(22, sparse).varint(20, 11))->to_doubles(),
      (std::vector<double>{0, 0, 7, 0}));
  // A name that promises another type than the attribute has.
  EXPECT_TRUE(fails_with(
      model(chain({node("Constant", {}, {"y"}, {attr_string("value_int", "abc")})}).build()),
      "value_int"));
}

TEST(Reader, SparseInitialisers) {
  const auto sparse_model = [](std::vector<std::int64_t> dims, const Message& indices) {
    GraphParts g = small();
    g.initializers.clear();
    g.extra.message(
        15,
        Message().message(1, float_tensor("w", {2}, {5, 6})).message(2, indices).packed(3, dims));
    return model(g.build());
  };
  const Message flat = Message().packed(1, {2}).varint(2, 7).packed(7, {0, 2});
  EXPECT_EQ(read(sparse_model({3}, flat))->graph->first()->input(1)->constant->to_doubles(),
            (std::vector<double>{5, 0, 6}));
  const Message pairs = Message().packed(1, {2, 2}).varint(2, 7).packed(7, {0, 1, 1, 0});
  EXPECT_EQ(read(sparse_model({2, 2}, pairs))->graph->first()->input(1)->constant->to_doubles(),
            (std::vector<double>{0, 5, 6, 0}));
  EXPECT_NE(error_of(sparse_model({2}, flat)), "");
  EXPECT_NE(error_of(sparse_model({2, 1}, pairs)), "");
  EXPECT_NE(error_of(sparse_model({std::int64_t{1} << 40U}, flat)), "");
  EXPECT_NE(error_of(sparse_model({3}, Message().packed(1, {1}).varint(2, 7).packed(7, {0}))), "");
  EXPECT_NE(error_of(sparse_model({3}, Message().packed(1, {2}).varint(2, 7).packed(7, {-1, 0}))),
            "");
}

// -------------------------------------------------------------- functions

Message function(std::string_view name, const std::vector<std::string>& inputs,
                 const std::vector<std::string>& outputs, const std::vector<Message>& nodes) {
  Message f;
  f.bytes(1, name);
  for (const auto& i : inputs) f.bytes(4, i);
  for (const auto& o : outputs) f.bytes(5, o);
  for (const auto& n : nodes) f.message(7, n);
  return f.message(9, opset("", 17)).bytes(10, "local");
}

Message with_functions(const Message& graph, const std::vector<Message>& functions) {
  Message m = model(graph);
  m.message(8, opset("local", 1));
  for (const auto& f : functions) m.message(25, f);
  return m;
}

TEST(Reader, FunctionsAreInlined) {
  const Message twice = function("Twice", {"a"}, {"b"}, {node("Add", {"a", "a"}, {"b"})});
  const Message four = function(
      "Four", {"a"}, {"b"},
      {node("Twice", {"a"}, {"t"}, {}, "local"), node("Twice", {"t"}, {"b"}, {}, "local")});
  const auto m =
      read(with_functions(chain({node("Four", {"x"}, {"y"}, {}, "local")}).build(), {twice, four}));
  ASSERT_EQ(m->graph->node_count(), 2U);
  EXPECT_EQ(m->graph->last()->op_type, "Add");
  EXPECT_EQ(m->graph->last()->input(0), m->graph->first()->output(0));
  EXPECT_EQ(m->graph->first()->opset, 17);
}

TEST(Reader, AttributeReferences) {
  Message f = function("Soft", {"a"}, {"b"},
                       {node("Softmax", {"a"}, {"b"}, {attr_ref("axis", "along", 2)})});
  const auto axis_of = [](const Message& m) -> std::int64_t {
    const auto read_model = read(m);
    const ir::Attribute* a = read_model->graph->first()->attribute("axis");
    return a == nullptr ? 99 : std::get<std::int64_t>(a->data);
  };
  const auto call = [](std::vector<Message> attributes) {
    return chain({node("Soft", {"x"}, {"y"}, std::move(attributes), "local")}).build();
  };
  EXPECT_EQ(axis_of(with_functions(call({attr_int("along", 1)}), {f})), 1);
  EXPECT_EQ(axis_of(with_functions(call({}), {f})), 99);
  f.message(11, attr_int("along", -2));  // its default
  EXPECT_EQ(axis_of(with_functions(call({}), {f})), -2);
  EXPECT_EQ(axis_of(with_functions(call({attr_int("along", 0)}), {f})), 0);
  // Through two functions.
  const Message outer =
      function("Outer", {"a"}, {"b"},
               {node("Soft", {"a"}, {"b"}, {attr_ref("along", "which", 2)}, "local")});
  EXPECT_EQ(axis_of(with_functions(
                chain({node("Outer", {"x"}, {"y"}, {attr_int("which", 3)}, "local")}).build(),
                {f, outer})),
            3);
}

TEST(Reader, FunctionsDoNotSeeTheirCaller) {
  const Message peek = function("Peek", {"a"}, {"b"}, {node("Add", {"a", "x"}, {"b"})});
  EXPECT_NE(
      error_of(with_functions(chain({node("Peek", {"x"}, {"y"}, {}, "local")}).build(), {peek})),
      "");
}

TEST(Reader, FunctionsThatCallThemselvesOrExplode) {
  const Message self = function("Self", {"a"}, {"b"}, {node("Self", {"a"}, {"b"}, {}, "local")});
  EXPECT_NE(
      error_of(with_functions(chain({node("Self", {"x"}, {"y"}, {}, "local")}).build(), {self})),
      "");
  // Each level calls the one below it 64 times.
  std::vector<Message> levels;
  for (int level = 0; level < 12; ++level) {
    std::vector<Message> nodes;
    for (int i = 0; i < 64; ++i) {
      const std::string in = i == 0 ? "a" : "v" + std::to_string(i);
      const std::string out = i == 63 ? "b" : "v" + std::to_string(i + 1);
      nodes.push_back(level == 0 ? node("Neg", {in}, {out})
                                 : node("L" + std::to_string(level - 1), {in}, {out}, {}, "local"));
    }
    levels.push_back(function("L" + std::to_string(level), {"a"}, {"b"}, nodes));
  }
  EXPECT_NE(
      error_of(with_functions(chain({node("L11", {"x"}, {"y"}, {}, "local")}).build(), levels)),
      "");
}

// -------------------------------------------------------------- external data

class ExternalData : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("onnx2nn_reader_" + std::to_string(::getpid()));
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "model" / "sub");
    for (const char* name : {"secret", "model/w.bin", "model/sub/w.bin"})
      std::ofstream(folder_ / name) << "0123456789ab";
    fs::create_symlink(folder_ / "secret", folder_ / "model" / "link");
    fs::create_directory_symlink(folder_, folder_ / "model" / "up");
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string error(const std::vector<std::pair<std::string, std::string>>& entries) const {
    return error_of(external_model(entries), (folder_ / "model").string());
  }
  static Message external_model(const std::vector<std::pair<std::string, std::string>>& entries) {
    Message t = Message().packed(1, {3}).varint(2, 1).bytes(8, "w").varint(14, 1);
    for (const auto& [k, v] : entries) t.message(13, Message().bytes(1, k).bytes(2, v));
    GraphParts g = small();
    g.initializers = {t};
    return model(g.build());
  }
  fs::path folder_;
};

TEST_F(ExternalData, InsideTheFolder) {
  EXPECT_EQ(error({{"location", "w.bin"}}), "");
  EXPECT_EQ(error({{"location", "sub/w.bin"}, {"offset", "0"}, {"length", "12"}}), "");
  EXPECT_EQ(error({{"location", "./w.bin"}}), "");
}

TEST_F(ExternalData, OutsideTheFolder) {
  for (const char* location : {"../secret", "sub/../../secret", "/etc/passwd", "link", "up/secret",
                               "", ".", "sub", "missing.bin", "/dev/zero"})
    EXPECT_NE(error({{"location", location}}), "") << location;
  EXPECT_NE(error({{"location", (folder_ / "model" / "w.bin").string()}}), "");
  EXPECT_NE(error({{"location", std::string("w.bin\0.txt", 10)}}), "");
  EXPECT_NE(error({}), "");
}

TEST_F(ExternalData, OffsetsAndLengths) {
  for (const char* offset :
       {"1", "12", "18446744073709551615", "18446744073709551616", "-1", "0x0", "1e3", " 0", "a"})
    EXPECT_NE(error({{"location", "w.bin"}, {"offset", offset}}), "") << offset;
  for (const char* length : {"11", "13", "18446744073709551615", "-12", "twelve"})
    EXPECT_NE(error({{"location", "w.bin"}, {"length", length}}), "") << length;
}

TEST_F(ExternalData, NoneWhereThereIsNoFolder) {
  EXPECT_TRUE(fails_with(external_model({{"location", "w.bin"}}), "given as bytes"));
}

}  // namespace
}  // namespace onnx2nn
