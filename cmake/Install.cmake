# find_package(onnx2nn): the static libraries (onnx2nn::onnx2nn, C++), the shared one (onnx2nn::c, C), the public headers
# and the program.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/onnx2nn)
set_target_properties(onnx2nn_core PROPERTIES EXPORT_NAME onnx2nn)
install(
  TARGETS ${ONNX2NN_LIBRARIES} onnx2nn_shared
  EXPORT onnx2nn-targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT native
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT native)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/onnx2nn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT native)
install(EXPORT onnx2nn-targets NAMESPACE onnx2nn:: DESTINATION ${package_folder} COMPONENT native)
if(TARGET onnx2nn_program)
  install(TARGETS onnx2nn_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT native)
endif()

file(
  CONFIGURE
  OUTPUT ${PROJECT_BINARY_DIR}/onnx2nn-config.cmake
  CONTENT [[include(CMakeFindDependencyMacro)
find_dependency(fmt)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/onnx2nn-targets.cmake)
]]
  @ONLY)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/onnx2nn-config-version.cmake COMPATIBILITY SameMinorVersion)
install(
  FILES ${PROJECT_BINARY_DIR}/onnx2nn-config.cmake ${PROJECT_BINARY_DIR}/onnx2nn-config-version.cmake
  DESTINATION ${package_folder} COMPONENT native)
