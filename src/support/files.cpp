#include "support/files.h"

namespace onnx2nn::files {

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::Folder:
      return "a folder";
    case Kind::Device:
      return "a device";
    case Kind::Pipe:
      return "a pipe";
    case Kind::Socket:
      return "a socket";
    case Kind::Regular:
    case Kind::Other:
      break;
  }
  return "no regular file";
}

}  // namespace onnx2nn::files
