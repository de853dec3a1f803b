// com.microsoft's weights of four or eight bits, with a scale for each block of a row, said as
// DequantizeLinear in blocks of the same bytes: lowering keeps them in integers and makes layers of them.
// For conversion alone.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "passes/match.h"
#include "passes/quantized_values.h"

namespace onnx2nn::passes {
namespace {

// The opset in which DequantizeLinear came to know blocks.
constexpr std::int64_t kBlocksOpset = 21;

/// A weight of `bits` bits in blocks along its axis.
struct Blocks {
  ir::TensorPtr integers;
  ir::TensorPtr scale;
  ir::TensorPtr zero;
  std::int64_t axis = 1;
  std::int64_t size = 0;
};

// Rows and columns of a weight that are taken: their product is a number.
constexpr std::int64_t kMostOfSide = std::int64_t{1} << 31;

ir::DType unsigned_of(std::int64_t bits) {
  return bits == 4 ? ir::DType::UInt4 : ir::DType::UInt8;
}

/// The same bytes as elements of `bits` bits; null where they are not as many as `dims` needs.
ir::TensorPtr elements_of(const ir::Tensor& bytes, std::int64_t bits, const Ints& dims) {
  if (bytes.dtype() != ir::DType::UInt8 || bytes.size() % (8 / bits) != 0) return nullptr;
  std::int64_t count = 1;
  for (const std::int64_t d : dims) count *= d;
  if (count != bytes.size() * (8 / bits)) return nullptr;
  return std::make_shared<ir::Tensor>(unsigned_of(bits), dims, bytes.source());
}

/// Zero points of `bits` bits, `columns` in each row of whole bytes; without any, all are the middle.
ir::TensorPtr zeros_of(const ir::Value* given, std::int64_t bits, std::int64_t rows,
                       std::int64_t columns) {
  const std::int64_t in_byte = 8 / bits;
  const std::int64_t row_bytes = (columns + in_byte - 1) / in_byte;
  if (given != nullptr && given->constant->size() != rows * row_bytes) return nullptr;
  if (given != nullptr && columns % in_byte == 0)
    return elements_of(*given->constant, bits, {rows, columns});
  std::vector<std::byte> packed(ir::packed_size(unsigned_of(bits), rows * columns));
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    const std::int64_t at = i / columns * row_bytes * in_byte + i % columns;
    std::int64_t zero = std::int64_t{1} << (bits - 1);
    if (given != nullptr)
      zero = given->constant->int_at(at / in_byte) >> (at % in_byte * bits) & ((1 << bits) - 1);
    packed[static_cast<std::size_t>(i / in_byte)] |=
        static_cast<std::byte>(zero << (i % in_byte * bits));
  }
  return ir::Tensor::owned(unsigned_of(bits), {rows, columns}, std::move(packed));
}

ir::Value* real_blocks(Rewriter& w, ir::Node& n, ir::Value& weight, ir::Value& scale,
                       const Blocks& blocks) {
  ir::Graph& g = *n.graph();
  Values inputs{w.weight(g, weight, blocks.integers), w.constant(g, scale.name, blocks.scale)};
  if (blocks.zero) inputs.push_back(w.constant(g, weight.name + "_zero_point", blocks.zero));
  ir::Type type = ir::Type::tensor(blocks.scale->dtype(), ir::Shape::of(blocks.integers->dims()));
  ir::Node* made = w.add_new("DequantizeLinear", inputs, weight.name, std::move(type), kBlocksOpset, n);
  made->metadata = n.metadata;
  set_attr(*made, "axis", blocks.axis);
  set_attr(*made, "block_size", blocks.size);
  return made->output(0);
}

bool is_constant(const ir::Value* v) { return v != nullptr && v->constant != nullptr; }

}  // namespace

// MatMulNBits(x, packed, scales)   =>   F.linear(x, DequantizeLinear(weight, scales))
bool open_nbits(Rewriter& w, ir::Node& n) {
  if (n.domain != kMicrosoft || n.op_type != "MatMulNBits" || n.output(0) == nullptr ||
      !n.output(0)->has_uses())
    return false;
  const std::int64_t bits = attr_int(n, "bits", 4);
  const std::int64_t block = attr_int(n, "block_size", 0);
  const std::int64_t columns = attr_int(n, "K", 0);
  const std::int64_t rows = attr_int(n, "N", 0);
  const ir::Value* zeros = n.input(3);
  const ir::Value* bias = n.input(5);
  if ((bits != 4 && bits != 8) || block <= 0 || columns <= 0 || rows <= 0 || columns % block != 0 ||
      rows > kMostOfSide || columns > kMostOfSide)
    return w.miss(n, "its rows are not of whole blocks of four or eight bits");
  if (attr_int(n, "weight_prepacked", 0) != 0 || n.input(4) != nullptr)
    return w.miss(n, "its blocks are in another order");
  if (!is_constant(n.input(1)) || !is_constant(n.input(2)) || (zeros != nullptr && !is_constant(zeros)))
    return w.miss(n, "its weight is no constant");
  const ir::TensorPtr& scale = n.input(2)->constant;
  const ir::Value* x = n.input(0);
  const bool rounds = attr_int(n, "accuracy_level", 0) == 4;
  if (x == nullptr || !x->type.is_tensor() || x->type.dtype != scale->dtype() ||
      (rounds && scale->dtype() != ir::DType::Float32))
    return w.miss(n, "its scales are of another type than the other factor");
  if (zeros != nullptr && zeros->constant->dtype() != ir::DType::UInt8)
    return w.miss(n, "its zero points are no integers");
  if (bias != nullptr && (!bias->constant || bias->constant->dims() != Ints{rows} ||
                          bias->constant->dtype() != scale->dtype()))
    return w.miss(n, "its bias is no constant vector");
  if (scale->size() != rows * (columns / block)) return w.miss(n, "its scales are not one a block");
  Blocks blocks{.integers = elements_of(*n.input(1)->constant, bits, {rows, columns}),
                .scale = scale->reshaped({rows, columns / block}),
                .zero = zeros_of(zeros, bits, rows, columns / block),
                .axis = 1,
                .size = block};
  if (!blocks.integers || !blocks.zero) return w.miss(n, "its weight is not packed as its sizes say");
  Values inputs{n.input(0), real_blocks(w, n, *n.input(1), *n.input(2), blocks)};
  if (rounds) {
    ir::Value* like[] = {n.input(0)};
    ir::Node* rounded = w.add_torch("RoundRows", {inputs.data(), 1}, like, n);
    rounded->output(0)->name = w.model().new_name(n.input(0)->name);
    set_attr(*rounded, "block_size", block);
    inputs[0] = rounded->output(0);
  }
  if (bias != nullptr) inputs.push_back(n.input(5));
  ir::Value* like[] = {n.output(0)};
  ir::Node* made = w.add_torch("Linear", inputs, like, n);
  w.replace(n.output(0), made->output(0));
  return true;
}

// GatherBlockQuantized(table, ids, scales)   =>   Gather(DequantizeLinear(table, scales), ids)
bool open_gather(Rewriter& w, ir::Node& n) {
  if (n.domain != kMicrosoft || n.op_type != "GatherBlockQuantized" || n.output(0) == nullptr ||
      !n.output(0)->has_uses())
    return false;
  const std::int64_t bits = attr_int(n, "bits", 4);
  const std::int64_t block = attr_int(n, "block_size", 128);
  if (!is_constant(n.input(0)) || !is_constant(n.input(2)) ||
      (n.input(3) != nullptr && !is_constant(n.input(3))))
    return w.miss(n, "its table is no constant");
  const ir::TensorPtr& table = n.input(0)->constant;
  const bool packed = table->dtype() == ir::DType::UInt8;
  if (table->rank() != 2 || attr_int(n, "gather_axis", 0) != 0 ||
      attr_int(n, "quantize_axis", 1) != 1 || (packed && bits != 4 && bits != 8))
    return w.miss(n, "it is no table of rows");
  const std::int64_t rows = table->dims()[0];
  if (rows <= 0 || rows > kMostOfSide || table->dims()[1] > kMostOfSide / 2)
    return w.miss(n, "its table is empty or too large");
  const std::int64_t columns = table->dims()[1] * (packed ? 8 / bits : 1);
  if (block <= 0 || columns % block != 0 || n.input(2)->constant->dims() != Ints{rows, columns / block})
    return w.miss(n, "its rows are not of whole blocks");
  Blocks blocks{.integers = table, .scale = n.input(2)->constant, .zero = nullptr, .axis = 1, .size = block};
  if (packed) {
    blocks.integers = elements_of(*table, bits, {rows, columns});
    blocks.zero = zeros_of(n.input(3), bits, rows, columns / block);
    if (!blocks.zero || !blocks.integers) return w.miss(n, "it is not packed as its sizes say");
  } else if (n.input(3) != nullptr) {
    blocks.zero = n.input(3)->constant;
  }
  ir::Value* real = real_blocks(w, n, *n.input(0), *n.input(2), blocks);
  ir::Node* gather = w.add("Gather", Values{real, n.input(1)}, *n.output(0), n);
  set_attr(*gather, "axis", std::int64_t{0});
  gather->opset = kRealOpset;
  w.replace(n.output(0), gather->output(0));
  return true;
}

}  // namespace onnx2nn::passes
