// The handle of the C interface, and how the work behind it is run.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/results.h"
#include "onnx2nn/convert.h"
#include "onnx2nn/onnx2nn.h"
#include "onnx2nn/simplify.h"
#include "support/error.h"

/// A conversion, a simplification, or members of JSON alone.
struct onnx2nn_result {
  onnx2nn_status status = ONNX2NN_DONE;
  std::string diagnostics;  // as people read them
  std::string model_path;   // empty: bytes
  std::optional<onnx2nn::Conversion> conversion;
  std::optional<onnx2nn::Simplified> simplified;
  std::vector<std::string> files;  // written
  /// What there is besides the members of the two above, or in their place.
  onnx2nn::cli::Json said = onnx2nn::cli::Json::object();
  /// JSON that was asked for, by member; "" is the whole. Made only then: that of many weights is long.
  mutable std::map<std::string, std::string, std::less<>> texts;
  mutable std::mutex mutex;  // of `texts`
};

namespace onnx2nn::c {

using cli::Json;

/// The JSON of a handle, or of one member of it: null where there is none.
Json json_of(const onnx2nn_result& r);
Json json_of(const onnx2nn_result& r, std::string_view member);

/// Sets the status and the text that the handle has from now on; what JSON it had is forgotten.
void say(onnx2nn_result& r, onnx2nn_status status, std::string diagnostics);
/// The same, for a list that came of the work.
void say(onnx2nn_result& r, const std::vector<DiagnosticInfo>& list);
/// The same for an error that is about no node.
void say_error(onnx2nn_result& r, onnx2nn_status status, const Error& e);

onnx2nn_status status_of(const std::vector<DiagnosticInfo>& list, bool readable);

/// What may be wrong with arguments: throws Error "bad-option" for NULL.
void require(const void* argument, std::string_view name);

/// Does the work; whatever it throws becomes the result's status and text.
onnx2nn_status guarded(onnx2nn_result& r, const std::function<void()>& work) noexcept;

/// The same for a new handle.
template <typename Work>
onnx2nn_status made(onnx2nn_result** result, Work&& work) noexcept {
  if (result == nullptr) return ONNX2NN_USAGE;
  *result = new (std::nothrow) onnx2nn_result;
  if (*result == nullptr) return ONNX2NN_INTERNAL;
  return guarded(**result, [&] { work(**result); });
}

}  // namespace onnx2nn::c
