// Which numbers of a class are parameters of its constructor, and what they are called.
#pragma once

#include <string>
#include <vector>

#include "structure/normal.h"

namespace onnx2nn::structure {

struct Parameters {
  std::vector<torch::Parameter> declared;  // those with defaults last
  std::vector<torch::VarPtr> stored;       // the ones that methods read, as attributes
  torch::VarPtr flag;                      // whether the optional member is there
  std::vector<torch::ExprPtr> numbers;     // for each hole of the first module; null: as it is
  std::vector<torch::Args> args;           // of each module's constructor call
  std::vector<std::string> positional;     // what these are called
  std::vector<torch::Kwargs> keywords;     // all of them, defaults included
};

/// From the numbers in which modules of one class differ. The first `with` modules have the member
/// `optional`, the others don't (0: there is none).
Parameters find_parameters(Tree& tree, const Own& first, const std::vector<Own*>& modules,
                           const std::vector<Normal>& normals, std::size_t with,
                           const std::string& optional);

}  // namespace onnx2nn::structure
