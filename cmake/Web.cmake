# The page in the browser: the C interface as WebAssembly, and the files of web/ beside it, in dist/ of the build folder.
#
# Emscripten builds it (emcmake cmake --preset web; tools/web.sh). It differs from the native build in this:
# - No threads: memory that they share needs headers which plain static hosts do not send. What asks for one does without.
# - Exceptions are WebAssembly's own: those of -fexceptions go through JavaScript at each call that may throw.
# - Memory grows up to 4 GiB. A model takes addresses of its own size, but memory only for what is looked at.
# - Files are those of web/files.js: what was dropped, read where the core looks, and what is written, as pieces of it.
# - fmt is compiled in from its headers, and what its C++ library lacks is in src/support/web.h; src/support/
#   files_posix.cpp and system_posix.cpp have the calls of the system that it lacks.

add_executable(onnx2nn_web ${c_sources})
target_include_directories(onnx2nn_web PRIVATE include src)
target_link_libraries(onnx2nn_web PRIVATE onnx2nn_cli nlohmann_json::nlohmann_json onnx2nn_options)
onnx2nn_precompile(onnx2nn_web)

set(functions
    convert_file
    simplify_file
    write
    json
    source
    modules
    diagnostics
    free)
list(TRANSFORM functions PREPEND _onnx2nn_)
list(JOIN functions "," functions)
set(dist ${PROJECT_BINARY_DIR}/dist)
set_target_properties(onnx2nn_web PROPERTIES OUTPUT_NAME onnx2nn RUNTIME_OUTPUT_DIRECTORY ${dist})
target_link_options(
  onnx2nn_web
  PRIVATE
  --no-entry
  -sMODULARIZE
  -sEXPORT_ES6
  -sENVIRONMENT=worker
  -sFORCE_FILESYSTEM
  -sDYNAMIC_EXECUTION=0
  -sALLOW_MEMORY_GROWTH
  -sMAXIMUM_MEMORY=4GB
  -sTOTAL_STACK=8MB # as a native thread has it
  -sEXPORTED_FUNCTIONS=_malloc,_free,${functions}
  -sEXPORTED_RUNTIME_METHODS=FS,lengthBytesUTF8,stringToUTF8
  -sINCOMING_MODULE_JS_API=instantiateWasm,copyBetween)

# Prism makes tokens of the source, from which the page makes elements; its own way to the page makes HTML.
find_path(prism_folder components/prism-core.min.js PATHS /usr/share/nodejs/prismjs NO_CMAKE_FIND_ROOT_PATH)
if(NOT prism_folder)
  message(FATAL_ERROR "Prism is not installed (Debian: node-prismjs)")
endif()
set(documents /usr/share/doc)
file(GLOB page_files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/web/*)
set(prism_files ${prism_folder}/components/prism-core.min.js ${prism_folder}/components/prism-python.min.js)
add_custom_command(
  OUTPUT ${PROJECT_BINARY_DIR}/page.stamp
  COMMAND ${CMAKE_COMMAND} -E copy ${page_files} ${PROJECT_SOURCE_DIR}/examples/digits.onnx ${dist}
  COMMAND ${CMAKE_COMMAND} -E cat ${prism_files} > ${dist}/prism.js
  COMMAND ${CMAKE_COMMAND} -DDIST=${dist} -DROOT=${PROJECT_SOURCE_DIR} -P ${PROJECT_SOURCE_DIR}/cmake/WebLicences.cmake
  COMMAND ${CMAKE_COMMAND} -E touch ${PROJECT_BINARY_DIR}/page.stamp
  DEPENDS ${page_files} ${prism_files} ${PROJECT_SOURCE_DIR}/cmake/WebLicences.cmake
  COMMENT "Putting the page together"
  VERBATIM)
add_custom_target(onnx2nn_page ALL DEPENDS ${PROJECT_BINARY_DIR}/page.stamp)
