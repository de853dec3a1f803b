# Text that the program carries with it, compiled in: the runtime helpers that emitted source copies, and the
# table of ATen schemas, and helpers for TorchScript. `onnx2nn_embed(OUT)` puts the generated sources' names into OUT; both belong to
# onnx2nn_torch and implement src/torch/runtime_files.h.

function(onnx2nn_embed out)
  set(script ${PROJECT_SOURCE_DIR}/cmake/EmbedText.cmake)
  set(folder ${PROJECT_BINARY_DIR}/generated)
  set(namespace_arguments -DNAMESPACE=onnx2nn::torch -DHEADER=torch/runtime_files.h)

  file(GLOB runtime_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/python/onnx2nn/runtime/*.py)
  list(FILTER runtime_files EXCLUDE REGEX "/__init__\\.py$")
  list(SORT runtime_files)
  # The list itself is an input: taking a file away must generate anew.
  file(CONFIGURE OUTPUT ${folder}/runtime_files.list CONTENT "${runtime_files}" @ONLY)
  add_custom_command(
    OUTPUT ${folder}/runtime_files.cpp
    COMMAND ${CMAKE_COMMAND} -DKIND=files -DLIST=${folder}/runtime_files.list -DOUTPUT=${folder}/runtime_files.cpp
            ${namespace_arguments} -P ${script}
    DEPENDS ${script} ${folder}/runtime_files.list ${runtime_files}
    COMMENT "Embedding the runtime helpers"
    VERBATIM)

  set(schemas ${PROJECT_SOURCE_DIR}/src/torch/aten_schemas.txt)
  add_custom_command(
    OUTPUT ${folder}/aten_schemas.cpp
    COMMAND ${CMAKE_COMMAND} -DKIND=text -DINPUT=${schemas} -DFUNCTION=aten_schemas -DOUTPUT=${folder}/aten_schemas.cpp
            ${namespace_arguments} -P ${script}
    DEPENDS ${script} ${schemas}
    COMMENT "Embedding the ATen schemas"
    VERBATIM)

  set(helpers ${PROJECT_SOURCE_DIR}/src/torch/script_helpers.txt)
  add_custom_command(
    OUTPUT ${folder}/script_helpers.cpp
    COMMAND ${CMAKE_COMMAND} -DKIND=text -DINPUT=${helpers} -DFUNCTION=script_helpers
            -DOUTPUT=${folder}/script_helpers.cpp ${namespace_arguments} -P ${script}
    DEPENDS ${script} ${helpers}
    COMMENT "Embedding the helpers for TorchScript"
    VERBATIM)

  set(${out} ${folder}/runtime_files.cpp ${folder}/aten_schemas.cpp ${folder}/script_helpers.cpp PARENT_SCOPE)
endfunction()
