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

option(ONNX2NN_BUNDLED "Compile fmt in from its headers, so that no library of it is linked" ${EMSCRIPTEN})
if(ONNX2NN_BUNDLED)
  # Headers of third_party/, which an sdist has, or the system's. Their folder there holds the system's own headers, too,
  # which are not for another platform, so that ours has a link to each that is wanted.
  set(bundled ${PROJECT_BINARY_DIR}/headers)
  file(MAKE_DIRECTORY ${bundled})
  set(bundled_names fmt nlohmann)
  set(bundled_files fmt/core.h nlohmann/json.hpp)
  foreach(name header IN ZIP_LISTS bundled_names bundled_files)
    find_path(
      bundled_${name}_folder ${header} PATHS ${PROJECT_SOURCE_DIR}/third_party /usr/include NO_DEFAULT_PATH
      NO_CMAKE_FIND_ROOT_PATH)
    if(bundled_${name}_folder)
      file(CREATE_LINK ${bundled_${name}_folder}/${name} ${bundled}/${name} SYMBOLIC)
    endif()
  endforeach()
  if(bundled_fmt_folder)
    file(STRINGS ${bundled_fmt_folder}/fmt/core.h bundled_fmt_version REGEX "#define FMT_VERSION 9")
  endif()
  if(bundled_fmt_version) # src/support/fmt.cpp is for that version
    add_library(onnx2nn_fmt STATIC ${PROJECT_SOURCE_DIR}/src/support/fmt.cpp)
    target_include_directories(onnx2nn_fmt SYSTEM PUBLIC ${bundled})
    add_library(fmt::fmt ALIAS onnx2nn_fmt)
  endif()
  if(bundled_nlohmann_folder)
    add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
    target_include_directories(nlohmann_json::nlohmann_json INTERFACE ${bundled})
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
