# What the C++ code stands on. Each is taken from the system where it is installed (Debian 12 has them all:
# nlohmann-json3-dev libfmt-dev libgtest-dev libbenchmark-dev), else fetched from its official
# release by pinned hash.

include(FetchContent)
set(CMAKE_POLICY_VERSION_MINIMUM 3.10) # some releases ask for a CMake so old that CMake 4 refuses it

# onnx2nn_dependency(NAME PACKAGE p TARGET t URL u SHA256 h): afterwards target t exists.
macro(onnx2nn_dependency name)
  cmake_parse_arguments(DEP "" "PACKAGE;TARGET;URL;SHA256" "" ${ARGN})
  if(NOT TARGET ${DEP_TARGET})
    find_package(${DEP_PACKAGE} CONFIG QUIET)
  endif()
  if(NOT TARGET ${DEP_TARGET})
    if(NOT ONNX2NN_FETCH)
      message(FATAL_ERROR "${DEP_PACKAGE} is not installed, and ONNX2NN_FETCH is off")
    endif()
    message(STATUS "onnx2nn: ${DEP_PACKAGE} is not installed; fetching ${DEP_URL}")
    FetchContent_Declare(${name} URL ${DEP_URL} URL_HASH SHA256=${DEP_SHA256} DOWNLOAD_EXTRACT_TIMESTAMP ON SYSTEM)
    FetchContent_MakeAvailable(${name})
  endif()
endmacro()

if(EMSCRIPTEN)
  # The system's headers serve as well, its libraries are for another processor. Their folder holds the system's own
  # headers, too, so that ours has a link to each that is wanted.
  set(web_headers ${PROJECT_BINARY_DIR}/headers)
  file(MAKE_DIRECTORY ${web_headers})
  set(web_names fmt nlohmann)
  set(web_files fmt/core.h nlohmann/json.hpp)
  foreach(name header IN ZIP_LISTS web_names web_files)
    find_path(web_${name}_folder ${header} PATHS /usr/include NO_CMAKE_FIND_ROOT_PATH)
    if(web_${name}_folder)
      file(CREATE_LINK ${web_${name}_folder}/${name} ${web_headers}/${name} SYMBOLIC)
    endif()
  endforeach()
  if(web_fmt_folder)
    add_library(web_fmt STATIC ${PROJECT_SOURCE_DIR}/src/support/web_fmt.cpp)
    target_include_directories(web_fmt SYSTEM PUBLIC ${web_headers})
    add_library(fmt::fmt ALIAS web_fmt)
  endif()
  if(web_nlohmann_folder)
    add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
    target_include_directories(nlohmann_json::nlohmann_json INTERFACE ${web_headers})
  endif()
endif()

set(FMT_INSTALL ON) # our static libraries need it wherever they are installed
onnx2nn_dependency(
  fmt PACKAGE fmt TARGET fmt::fmt
  URL https://github.com/fmtlib/fmt/archive/refs/tags/10.2.1.tar.gz
  SHA256 1250e4cc58bf06ee631567523f48848dc4596133e163f02615c97f78bab6c811)

set(JSON_BuildTests OFF)
onnx2nn_dependency(
  nlohmann_json PACKAGE nlohmann_json TARGET nlohmann_json::nlohmann_json
  URL https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
  SHA256 d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d)

if(ONNX2NN_TESTS)
  set(INSTALL_GTEST OFF)
  onnx2nn_dependency(
    googletest PACKAGE GTest TARGET GTest::gtest_main
    URL https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
    SHA256 8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7)
endif()

if(ONNX2NN_BENCH)
  set(BENCHMARK_ENABLE_TESTING OFF)
  set(BENCHMARK_ENABLE_INSTALL OFF)
  onnx2nn_dependency(
    benchmark PACKAGE benchmark TARGET benchmark::benchmark_main
    URL https://github.com/google/benchmark/archive/refs/tags/v1.8.3.tar.gz
    SHA256 6bc180a57d23d4d9515519f92b0c83d61b05b5bab188961f36ac7b06b0d9e9ce)
endif()
