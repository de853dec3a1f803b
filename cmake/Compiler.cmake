# How every target of ours is compiled: `onnx2nn_options` is linked privately by each of them.

set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
# What wheels are of: a fifth smaller, and compiled in less time. Loops over elements are as in Release
# (onnx2nn_add_library).
set(CMAKE_CXX_FLAGS_MINSIZEREL "-Os -DNDEBUG")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g -DNDEBUG")
# -O1 compiles about as fast as -O0 and keeps the tests quick; the checks that NDEBUG removes stay on.
set(CMAKE_CXX_FLAGS_DEBUG "-O1 -g1")

# Not behind Emscripten's driver, which ccache does not know: EM_COMPILER_WRAPPER puts it behind that (tools/web.sh).
find_program(ONNX2NN_CCACHE ccache)
if(ONNX2NN_CCACHE AND NOT EMSCRIPTEN AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${ONNX2NN_CCACHE})
endif()

add_library(onnx2nn_options INTERFACE)
target_compile_definitions(onnx2nn_options INTERFACE ONNX2NN_VERSION="${PROJECT_VERSION}")
target_compile_options(
  onnx2nn_options
  INTERFACE
    -Wall
    -Wextra
    -Wpedantic
    -Wconversion # a 64-bit size cut to 32 bits is this domain's classic bug
    -Wno-sign-conversion # clang counts it to -Wconversion, g++ does not: the same for both
    -Wshadow
    -Wnon-virtual-dtor
    -Woverloaded-virtual
    -Wcast-qual
    -Wundef
    -Wimplicit-fallthrough
    -Wno-missing-field-initializers # rows of the operator table name only the fields they set
    -Wno-overlength-strings # embedded text is one literal
    -fdiagnostics-color=auto)
if(ONNX2NN_WERROR)
  target_compile_options(onnx2nn_options INTERFACE -Werror)
endif()

# Sanitizers and coverage change the layout of what is compiled: for every target, fetched ones too.
if(ONNX2NN_SANITIZE)
  set(sanitizers ${ONNX2NN_SANITIZE})
  if(ONNX2NN_SANITIZE MATCHES "undefined")
    string(APPEND sanitizers ",float-cast-overflow") # clang counts it not to `undefined`
  endif()
  add_compile_options(-fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  add_compile_definitions(_GLIBCXX_ASSERTIONS) # operator[] and front() of an empty vector, too
  add_link_options(-fsanitize=${sanitizers})
endif()
if(ONNX2NN_LIBFUZZER)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "ONNX2NN_LIBFUZZER needs clang; this is ${CMAKE_CXX_COMPILER_ID}")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
option(ONNX2NN_COVERAGE "Count which lines run (gcov)" OFF)
if(ONNX2NN_COVERAGE)
  add_compile_options(--coverage)
  add_link_options(--coverage)
endif()
option(ONNX2NN_TIDY "Run clang-tidy on every source" OFF)
if(ONNX2NN_TIDY)
  find_program(ONNX2NN_CLANG_TIDY NAMES clang-tidy-14 clang-tidy REQUIRED)
  set(CMAKE_CXX_CLANG_TIDY ${ONNX2NN_CLANG_TIDY} --quiet)
endif()

if(EMSCRIPTEN) # see Web.cmake
  set(CMAKE_CXX_FLAGS_QUICK "-O0 -DNDEBUG") # a third of the time to compile; what the tests build
  add_compile_options(-fwasm-exceptions -include ${PROJECT_SOURCE_DIR}/src/support/web.h)
  # Sizes have 32 bits there, and offsets in files 64: what a file may have is bounded when it is opened.
  target_compile_options(onnx2nn_options INTERFACE -Wno-shorten-64-to-32)
  add_link_options(-fwasm-exceptions)
endif()
