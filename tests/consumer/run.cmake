# Installs the library into a folder of its own, builds the consumer project against it and runs it.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE state)
  if(NOT state EQUAL 0)
    message(FATAL_ERROR "failed: ${ARGV}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_C_COMPILER=${C_COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/consumer ${SOURCE}/../../examples/digits.onnx)
run(${WORK}/build/c_consumer ${SOURCE}/../../examples/digits.onnx ${WORK}/written)

# The shared library exports the C interface, and nothing of C++.
file(GLOB_RECURSE shared ${WORK}/prefix/libonnx2nn.so)
if(shared)
  execute_process(COMMAND ${NM} -D --defined-only ${shared} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE "[^\n]* ([^ \n]+)\n" "\\1;" symbols "${symbols}")
  list(FILTER symbols EXCLUDE REGEX "^onnx2nn_[a-z_]+$")
  if(symbols)
    message(FATAL_ERROR "${shared} exports ${symbols}")
  endif()
endif()
