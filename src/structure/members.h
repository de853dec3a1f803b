// The step `members`: what each module has, and how statements reach it.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "structure/tree.h"

namespace onnx2nn::structure {

/// Thrown where a module of the author's has the path of a weight: the page is one class then.
struct Clash {
  std::string path;
};

/// Gives each layer, weight and constant of the program to the innermost module whose path its own
/// begins with. What lies between and is called by nobody is a list where its children are numbers,
/// else a module without methods.
void add_members(Tree& tree, const torch::Program& program);

/// The modules among its members, also those in lists.
std::vector<Own*> inner_modules(const Own& own);

/// Whether its members are numbers: a module that is itself a list.
bool is_list(const Own& own);

/// How the methods of `from`, which does not change meanwhile, reach what has a path:
/// `self.layer[0].weight`.
class Access {
 public:
  explicit Access(const Own& from) : from_(from) {}
  torch::Ex operator()(const std::vector<std::string>& path);

 private:
  struct Index {
    bool in_list = false;
    std::unordered_map<std::string_view, const Member*> members;
  };
  const Index& index_of(const Own& own);

  const Own& from_;
  std::unordered_map<const Own*, Index> indices_;  // of the modules on the way
};

/// The same, where it is a weight: printers are told whether it is a buffer.
torch::ExprPtr as_weight(const torch::Ex& access, const torch::Param& param);

}  // namespace onnx2nn::structure
