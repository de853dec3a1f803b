# A library is compiled several files at once, which takes a third of the time: what each file makes of the standard
# library's templates is made once. Files that may give one name to two things are kept apart; where that is missed, the
# build fails, and takes -DONNX2NN_UNITY=OFF. For what is built whole: a change of one file compiles its group anew.

option(ONNX2NN_UNITY "Compile several files of a library at once" ${EMSCRIPTEN})
if(ONNX2NN_UNITY)
  # A name may be another file's.
  target_compile_options(onnx2nn_options INTERFACE -Wno-shadow)
endif()

# What a file declares at the beginning of a line, and its enumerators; `hidden`: only what no other file sees.
function(onnx2nn_declared_in file hidden out)
  file(READ ${file} text)
  string(REGEX REPLACE "[][;]" " " text "${text}") # which mean something in lists
  string(REGEX MATCHALL "\n([A-Za-z][^\n]*[({=]| +k[A-Z][A-Za-z0-9]*(,| =|\n)|}  // namespace\n)" lines "${text}")
  set(names "")
  set(counts ON)
  if(hidden)
    set(counts OFF)
  endif()
  foreach(line IN LISTS lines)
    string(STRIP "${line}" line)
    if(line MATCHES "^namespace {")
      set(counts ON)
    elseif(line MATCHES "^}")
      set(counts OFF)
    elseif(counts)
      if(line MATCHES "^(class|struct|enum class|enum|using) ([A-Za-z_0-9]+)[ :={]"
         OR line MATCHES "[ *&]([A-Za-z_0-9]+) *()[({=]")
        list(APPEND names ${CMAKE_MATCH_1} ${CMAKE_MATCH_2})
      endif()
      string(REGEX MATCHALL "k[A-Z][A-Za-z0-9]*" constants "${line}")
      list(APPEND names ${constants})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES names)
  list(REMOVE_ITEM names kOps class struct enum using) # for kOps see below
  set(${out} ${names} PARENT_SCOPE)
endfunction()

file(GLOB_RECURSE headers ${PROJECT_SOURCE_DIR}/src/*.h)
foreach(header IN LISTS headers)
  onnx2nn_declared_in(${header} OFF names)
  file(RELATIVE_PATH path ${PROJECT_SOURCE_DIR}/src ${header})
  string(REGEX REPLACE "/.*" "" folder "${path}") # of a library; that of the core is src itself
  if(folder STREQUAL path)
    set(folder core)
  elseif(folder MATCHES "^(support|ir)$") # these all others see
    set(folder all)
  endif()
  foreach(name IN LISTS names)
    set(onnx2nn_shared_${folder}_${name} ON)
  endforeach()
endforeach()

# onnx2nn_unite(TARGET)
function(onnx2nn_unite target)
  if(NOT ONNX2NN_UNITY)
    return()
  endif()
  set(most 12) # files at once
  get_target_property(sources ${target} SOURCES)
  string(REPLACE onnx2nn_ "" library ${target})
  foreach(source IN LISTS sources)
    if(source MATCHES "^${PROJECT_BINARY_DIR}/") # made by the build
      continue()
    endif()
    onnx2nn_declared_in(${source} ON names)
    set(alone OFF)
    if(source MATCHES "_windows\\.cpp$") # <windows.h> has macros for common names
      set(alone ON)
    endif()
    foreach(name IN LISTS names)
      # Other files may mean what a header declares.
      if(DEFINED onnx2nn_shared_all_${name} OR DEFINED onnx2nn_shared_${library}_${name})
        set(alone ON)
      endif()
    endforeach()
    if(alone)
      set_source_files_properties(${source} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
      continue()
    endif()
    # The first group that has room and none of the names.
    set(group 0)
    set(fits OFF)
    while(NOT fits)
      set(fits ON)
      if(NOT DEFINED size_${group})
        set(size_${group} 0)
      endif()
      if(size_${group} EQUAL most)
        set(fits OFF)
      endif()
      foreach(name IN LISTS names)
        if(DEFINED taken_${group}_${name})
          set(fits OFF)
          break()
        endif()
      endforeach()
      if(NOT fits)
        math(EXPR group "${group} + 1")
      endif()
    endwhile()
    foreach(name IN LISTS names)
      set(taken_${group}_${name} ON)
    endforeach()
    math(EXPR size_${group} "${size_${group}} + 1")
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group})
  endforeach()
  # Each family of operators calls its rows so.
  set_target_properties(
    ${target}
    PROPERTIES UNITY_BUILD ON
               UNITY_BUILD_MODE GROUP
               UNITY_BUILD_UNIQUE_ID ONNX2NN_FILE
               UNITY_BUILD_CODE_BEFORE_INCLUDE "#define kOps ONNX2NN_FILE"
               UNITY_BUILD_CODE_AFTER_INCLUDE "#undef kOps")
endfunction()
