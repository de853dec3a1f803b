// What the files about the com.microsoft domain share.
#pragma once

#include "ops/lower.h"

namespace onnx2nn::ops {

inline constexpr std::string_view kMicrosoft = "com.microsoft";

/// ai.onnx's operator of this type.
const OpDef& standard_op(std::string_view type);

/// The hooks of ai.onnx's operator of this type, at one of its opsets, for a node that means the
/// same.
template <const char* const& Type, int Opset>
void infer_like(InferContext& c) {
  c.read_as(Opset);
  standard_op(Type).infer(c);
}

template <const char* const& Type, int Opset>
void lower_like(LowerContext& c) {
  c.read_as(Opset);
  standard_op(Type).lower(c);
}

/// Output 0 has the type of input 0.
void infer_as_input(InferContext& c);
/// The shape of a product of matrices.
Shape matmul_shape_of(InferContext& c, const Shape& a, const Shape& b);
/// Size `axis` of a shape, unknown where the shape is.
Dim dim_of(const Shape& s, std::size_t axis);
/// The three outputs of an LSTM, whose recurrent weight has the hidden size as axis `hidden_axis`.
void infer_lstm_outputs(InferContext& c, std::size_t hidden_axis);
/// The attributes that all kinds of LSTM share, as keywords.
Kwargs lstm_attributes(LowerContext& c);

}  // namespace onnx2nn::ops
