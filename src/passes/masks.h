// What masks of attention are known to let through.
#pragma once

#include "passes/rewriter.h"

namespace onnx2nn::passes {

/// Which keys of [..., query, key] a mask of truth values names.
enum class Triangle { None, Seen, Hidden };

/// Seen where `v` is true just for the keys up to the query's own place, Hidden where just for those
/// after it. A mask of integers is true where it is not 0.
Triangle triangle_of(const ir::Value* v);

/// Whether `mask` is 0 wherever the Trilu makes zeros of a tensor that is one finite number, so that
/// the product of both is that of the number and the mask.
bool is_masked_again(const ir::Node& trilu, const ir::Value* mask);

/// Whether `v` has `length` elements along an axis, counted from the last, which is 1, wherever it can
/// be broadcast to that: a slice of a constant up to `length` may end before it.
bool has_length(const ir::Value* v, std::size_t from_last, const ir::Dim& length);

/// Whether the numbers `v`, added to scores, hide just the keys after the query's own place: 0 for
/// the others, and for these -10,000 or less.
bool hides_later_keys(const ir::Value* v);

/// Whether the numbers `v` may take all keys of a query away: minus infinity is among what they are
/// made of, and is not known to leave one.
bool may_hide_all_keys(const ir::Value* v);

}  // namespace onnx2nn::passes
