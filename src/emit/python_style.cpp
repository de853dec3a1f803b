#include "emit/python_style.h"

#include <algorithm>
#include <array>

namespace onnx2nn::emit {
namespace {

struct Row {
  std::string_view function;
  Style style;
};

constexpr Style infix(std::string_view text, int precedence) {
  return {StyleKind::Infix, text, precedence};
}
constexpr Style method(std::size_t positional = 1, bool spread = false) {
  return {StyleKind::Method, {}, kPostfix, positional, spread};
}
constexpr Style functional(std::size_t positional = 0, std::string_view text = {}) {
  return {StyleKind::Functional, text, kPostfix, positional};
}
constexpr Style plain(std::size_t positional) {
  return {StyleKind::Torch, {}, kPostfix, positional};
}

constexpr std::array kRows = std::to_array<Row>({
    {"add", infix("+", kSum)},
    {"sub", infix("-", kSum)},
    {"mul", infix("*", kProduct)},
    {"div", infix("/", kProduct)},
    {"matmul", infix("@", kProduct)},
    {"remainder", infix("%", kProduct)},
    {"floor_divide", infix("//", kProduct)},
    {"pow", infix("**", kPower)},
    {"eq", infix("==", kCompare)},
    {"ne", infix("!=", kCompare)},
    {"lt", infix("<", kCompare)},
    {"le", infix("<=", kCompare)},
    {"gt", infix(">", kCompare)},
    {"ge", infix(">=", kCompare)},
    {"bitwise_or", infix("|", 34)},
    {"bitwise_xor", infix("^", 36)},
    {"bitwise_and", infix("&", 38)},
    {"bitwise_left_shift", infix("<<", 40)},
    {"bitwise_right_shift", infix(">>", 40)},
    {"neg", {StyleKind::Prefix, "-", kUnary}},
    {"bitwise_not", {StyleKind::Prefix, "~", kUnary}},
    {"reshape", method(1, true)},
    {"view", method(1, true)},
    {"permute", method(1, true)},
    {"expand", method(1, true)},
    {"repeat", method(1, true)},
    {"flip", method(1, true)},
    {"transpose", method(2)},
    {"unsqueeze", method()},
    {"squeeze", method()},
    {"flatten", method(2)},
    {"t", method()},
    {"to", method(1)},
    {"contiguous", method()},
    {"select", method()},
    {"mean", method(0)},
    {"sum", method(0)},
    {"prod", method(0)},
    {"amax", method(0)},
    {"amin", method(0)},
    {"argmax", method(0)},
    {"argmin", method(0)},
    {"all", method(0)},
    {"any", method(0)},
    {"split", method(1)},
    {"split_with_sizes", {StyleKind::Method, "split", kPostfix, 1}},
    {"chunk", method(1)},
    {"unbind", method(0)},
    {"masked_fill", method(2)},
    {"gather", method(2)},
    {"index_select", method(2)},
    {"cumsum", method(0)},
    {"cumprod", method(0)},
    {"logsumexp", method(0)},
    {"square", method()},
    {"topk", plain(1)},
    {"type_as", method()},
    {"clone", method()},
    {"scatter_add", method(3)},
    {"scatter", method(3)},
    {"nonzero", method()},
    {"unfold", method(3)},
    {"narrow", method(3)},
    {"index_add", method(3)},
    {"movedim", method(2)},
    {"cat", plain(0)},
    {"index_put", plain(2)},
    {"stack", plain(0)},
    {"where", plain(2)},
    {"clamp", {StyleKind::Torch, {}, kPostfix, 0, false, true}},
    {"full", plain(1)},
    {"full_like", plain(1)},
    {"new_full", method(2)},
    {"eye", plain(1)},
    {"arange", plain(2)},
    {"einsum", plain(1)},
    {"tensor", plain(0)},
    {"zeros", plain(0)},
    {"ones", plain(0)},
    {"tril", plain(1)},
    {"triu", plain(1)},
    {"tile", plain(1)},
    {"relu", functional()},
    {"relu6", functional()},
    {"leaky_relu", functional(1)},
    {"elu", functional()},
    {"celu", functional()},
    {"selu", functional()},
    {"gelu", functional()},
    {"silu", functional()},
    {"mish", functional()},
    {"hardswish", functional()},
    {"hardsigmoid", functional()},
    {"hardtanh", functional()},
    {"softplus", functional()},
    {"softsign", functional()},
    {"log_sigmoid", functional(0, "logsigmoid")},
    {"prelu", functional(1)},
    {"threshold", functional(2)},
    {"hardshrink", functional(1)},
    {"softshrink", functional(1)},
    {"softmax", functional()},
    {"log_softmax", functional()},
    {"pad", functional(1)},
    {"layer_norm", functional(1)},
    {"instance_norm", functional()},
    {"group_norm", functional(1)},
    {"rms_norm", functional(1)},
    {"linear", functional(2)},
    {"conv1d", functional(2)},
    {"conv2d", functional(2)},
    {"conv3d", functional(2)},
    {"conv_transpose1d", functional(2)},
    {"conv_transpose2d", functional(2)},
    {"conv_transpose3d", functional(2)},
    {"max_pool1d", functional(1)},
    {"max_pool2d", functional(1)},
    {"max_pool3d", functional(1)},
    {"avg_pool1d", functional(1)},
    {"avg_pool2d", functional(1)},
    {"avg_pool3d", functional(1)},
    {"adaptive_avg_pool1d", functional(1)},
    {"adaptive_avg_pool2d", functional(1)},
    {"adaptive_avg_pool3d", functional(1)},
    {"adaptive_max_pool1d", functional(1)},
    {"adaptive_max_pool2d", functional(1)},
    {"adaptive_max_pool3d", functional(1)},
    {"col2im", functional(1, "fold")},
    {"pixel_shuffle", functional(1)},
    {"pixel_unshuffle", functional(1)},
    {"one_hot", functional(1)},
    {"scaled_dot_product_attention", functional(2)},
    {"dropout", functional(2)},
    {"nll_loss_nd", functional(1, "nll_loss")},
    {"cross_entropy_loss", functional(1, "cross_entropy")},
    {"grid_sampler", {StyleKind::Torch, {}, kPostfix, 4}},
    {"linalg_inv", {StyleKind::Torch, "linalg.inv", kPostfix, 0}},
    {"linalg_det", {StyleKind::Torch, "linalg.det", kPostfix, 0}},
    {"linalg_vector_norm", {StyleKind::Torch, "linalg.vector_norm", kPostfix, 1}},
    {"special_erf", {StyleKind::Torch, "erf", kPostfix, 0}},
    {"hann_window", plain(1)},
    {"hamming_window", plain(3)},
    {"blackman_window", plain(1)},
    {"unflatten", method(2)},
    {"reshape_as", method(1)},
    {"embedding", {StyleKind::Functional, {}, kPostfix, 1, false, false, true}},
    {"fft_fft", {StyleKind::Torch, "fft.fft", kPostfix, 0}},
});

}  // namespace

Style style_of(std::string_view function) {
  const auto* it = std::find_if(kRows.begin(), kRows.end(),
                                [&](const Row& r) { return r.function == function; });
  return it != kRows.end() ? it->style : Style{};
}

}  // namespace onnx2nn::emit
