#include "structure/module_tree.h"

#include "structure/lift.h"
#include "structure/members.h"
#include "structure/open.h"
#include "structure/outline.h"
#include "structure/scopes.h"

namespace onnx2nn::structure {

Tree module_tree(const torch::Program& program,
                 const std::unordered_set<const torch::Param*>& shared) {
  torch::Program lifted = program;
  sink_sources(lifted);
  open_layers(lifted);
  lift_tables(lifted, shared);
  Tree tree = outline(lifted, place_statements(lifted));
  add_members(tree, lifted);
  return tree;
}

}  // namespace onnx2nn::structure
