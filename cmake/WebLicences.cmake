# Writes licences.txt of the page: ours, and those of what is compiled or copied into it, as Debian keeps them.
# Run as: cmake -DDIST=... -DROOT=... -P WebLicences.cmake

file(READ ${ROOT}/LICENSE text)
set(all "onnx2nn\n\n${text}")
foreach(package node-prismjs libfmt-dev nlohmann-json3-dev emscripten)
  set(path /usr/share/doc/${package}/copyright)
  if(EXISTS ${path})
    file(READ ${path} text)
    string(APPEND all "\n\n${package}\n\n${text}")
  endif()
endforeach()
file(WRITE ${DIST}/licences.txt "${all}")
