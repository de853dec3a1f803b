# What the Python package has of native code, beside its files: the shared library, and in a wheel a program that links it.

add_custom_target(onnx2nn_python DEPENDS onnx2nn_shared)
if(ONNX2NN_DEV)
  set(package ${PROJECT_SOURCE_DIR}/python/onnx2nn)
  # Extension modules of earlier versions, which Python would import instead.
  file(GLOB left ${package}/_native.*.so)
  file(REMOVE ${left})
  add_custom_command(
    TARGET onnx2nn_shared POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E create_symlink $<TARGET_FILE:onnx2nn_shared>
            ${package}/${CMAKE_SHARED_LIBRARY_PREFIX}onnx2nn${CMAKE_SHARED_LIBRARY_SUFFIX})
endif()
if(SKBUILD) # a wheel is being built: no links in it, and no version in the file's name
  set_property(TARGET onnx2nn_shared PROPERTY VERSION)
  set_property(TARGET onnx2nn_shared PROPERTY SOVERSION)
  add_executable(onnx2nn_linked src/c/main.cpp)
  set_target_properties(
    onnx2nn_linked PROPERTIES OUTPUT_NAME onnx2nn RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/linked
                              INSTALL_RPATH $<IF:$<BOOL:${APPLE}>,@loader_path,$ORIGIN>)
  target_include_directories(onnx2nn_linked PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(onnx2nn_linked PRIVATE onnx2nn_shared onnx2nn_options $<$<BOOL:${WIN32}>:shell32>)
  install(
    TARGETS onnx2nn_shared onnx2nn_linked
    LIBRARY DESTINATION onnx2nn COMPONENT python # each kind has a component of its own
    RUNTIME DESTINATION onnx2nn COMPONENT python)
endif()
