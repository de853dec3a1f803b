// The tree of the author's modules, as the stage builds it up step by step.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "torch/program.h"

namespace onnx2nn::structure {

struct Own;

/// What a module has under one name.
struct Member {
  enum class Kind : std::uint8_t { Module, Param, Constant, Own, List };
  std::string name;  // one component of the key; a number in a list
  Kind kind = Kind::Module;
  torch::ModulePtr module;  // of torch.nn
  torch::ParamPtr param;
  const torch::Constant* constant = nullptr;
  Own* own = nullptr;
  std::vector<Member> list;  // by number; a Module that is null is a place that nothing uses
  std::size_t order = 0;     // of its first use
};

/// A method: what crosses the border of a module's statements.
struct Method {
  std::string name;
  std::vector<torch::VarPtr> params;
  std::vector<torch::VarPtr> results;
  torch::Block body;  // without the return
  std::size_t optional = 0;  // how many of the last parameters may be None
};

/// A module whose class the file itself defines.
struct Own {
  int id = 0;
  Own* parent = nullptr;
  std::vector<std::string> path;
  std::string type;  // its class, as the file names it; may be empty
  std::vector<std::unique_ptr<Own>> children;
  std::vector<Method> methods;  // `forward` first; none: only attributes
  std::vector<Member> members;
  std::size_t order = 0;  // of its first call
  bool sequential = false;  // a plain chain, which needs no class

  // What the step `classes` finds.
  std::string class_name;
  torch::Args args;  // of the constructor
  std::vector<std::string> positional;  // what they are called
  torch::Kwargs keywords;
};

struct Tree {
  std::unique_ptr<Own> root;
  std::vector<Own*> modules;  // by id
  int next_var = 0;

  torch::VarPtr new_var(std::string hint) {
    auto v = std::make_shared<torch::Var>();
    v->hint = std::move(hint);
    v->id = next_var++;
    return v;
  }
  /// One that stands for `like` in another function.
  torch::VarPtr clone(const torch::VarPtr& like) {
    auto v = std::make_shared<torch::Var>(*like);
    v->id = next_var++;
    v->name.clear();  // its own function names it
    v->of = like;
    return v;
  }
  Own* add(Own* parent, std::vector<std::string> path, std::string type) {
    auto m = std::make_unique<Own>();
    m->id = static_cast<int>(modules.size());
    m->parent = parent;
    m->path = std::move(path);
    m->type = std::move(type);
    modules.push_back(m.get());
    Own* out = m.get();
    if (parent != nullptr) {
      parent->children.push_back(std::move(m));
    } else {
      root = std::move(m);
    }
    return out;
  }
};

}  // namespace onnx2nn::structure
