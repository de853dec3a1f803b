// Where results are written: one answer for the native program, the Python program and Python.
#pragma once

#include <string>

namespace onnx2nn {

struct OutputPaths {
  std::string source, weights;
};

/// `out`: x.py (weights go to x.safetensors), x.pth or x.safetensors (source in x.py), x.pt, x.pt2 or
/// x.pte (one file for both), a folder (MODEL.py in it), or empty for the current folder. Throws Error "bad-option" for
/// another name.
OutputPaths output_paths(const std::string& model, const std::string& out);

/// `out`: a file, a folder (MODEL-simple.onnx in it), or empty for the current folder.
std::string simplified_path(const std::string& model, const std::string& out);

/// Makes the folder that `path` is to lie in. Throws Error "io".
void make_folder_of(const std::string& path);

}  // namespace onnx2nn
