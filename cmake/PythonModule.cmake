# The nanobind module onnx2nn._native over the public C++ API.

if(NOT Python_EXECUTABLE AND NOT SKBUILD AND NOT DEFINED ENV{VIRTUAL_ENV}
   AND EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
  set(Python_EXECUTABLE ${PROJECT_SOURCE_DIR}/.venv/bin/python)
endif()
set(onnx2nn_required "")
if(NOT ONNX2NN_PYTHON STREQUAL "AUTO")
  set(onnx2nn_required REQUIRED)
endif()
find_package(Python 3.10 COMPONENTS Interpreter Development.Module ${onnx2nn_required})
# pip builds in a folder that is gone afterwards: a path kept from an earlier run may lead nowhere.
if(Python_FOUND AND NOT EXISTS "${nanobind_DIR}/nanobind-config.cmake")
  unset(nanobind_DIR CACHE)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir
    OUTPUT_VARIABLE nanobind_found
    ERROR_QUIET
    OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(nanobind_found)
    set(nanobind_DIR ${nanobind_found})
  endif()
endif()
if(Python_FOUND)
  find_package(nanobind CONFIG ${onnx2nn_required})
endif()
if(NOT nanobind_FOUND)
  message(STATUS "onnx2nn: the Python module is left out (no nanobind for ${Python_EXECUTABLE})")
  return()
endif()

file(GLOB python_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/python/*.cpp)
nanobind_add_module(onnx2nn_python NB_STATIC NOMINSIZE NB_SUPPRESS_WARNINGS ${python_sources})
set_target_properties(onnx2nn_python PROPERTIES OUTPUT_NAME _native)
target_include_directories(onnx2nn_python PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(onnx2nn_python PRIVATE onnx2nn_cli onnx2nn_options)
if(ONNX2NN_DEV)
  set_target_properties(onnx2nn_python PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_SOURCE_DIR}/python/onnx2nn)
endif()
if(SKBUILD) # a wheel is being built: beside the package's Python files
  install(TARGETS onnx2nn_python LIBRARY DESTINATION onnx2nn COMPONENT python)
endif()
