// From one flat function to the page that the model's author would have written.
#pragma once

#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "structure/tensor_parallel.h"
#include "torch/program.h"

namespace onnx2nn::structure {

struct Options {
  /// One class with all statements in `forward`, weights in plain containers.
  bool flat = false;
  /// `x = _trace(name, x)` after each statement that makes a value of the model: flat, and nothing
  /// is put into another line.
  bool trace = false;
  bool tp_plan = false;  // Page::tp_plan
  std::set<std::string> functions;  // names of the file besides its classes: helpers
};

/// Names of the runtime helpers that the program calls.
std::set<std::string> helpers_of(const torch::Program& program);

/// A module of the page.
struct PageModule {
  std::string path;
  std::string type;  // its class
  bool is_layer = false;  // of torch.nn
};

struct Page {
  torch::Program program;
  /// Weights that the module around several others reads for them; see find_repeats.
  std::unordered_set<const torch::Param*> shared;
  /// The program with all tables as the file has them: readers of TorchScript know few functions that make
  /// tensors.
  torch::Program with_tables;
  /// Comments that say a result's shape, by the variable that a statement of the program sets.
  std::unordered_map<const torch::Var*, std::string> shapes;
  TensorParallelPlan tp_plan;
  /// The tree of modules, each before those inside it; empty where the page is flat.
  std::vector<PageModule> modules;
};

/// The program with its classes: repeats, tables, scopes, outline, members, classes, sizes, limits, tidy,
/// split, names.
Page structured(torch::Program program, const Options& options);

}  // namespace onnx2nn::structure
