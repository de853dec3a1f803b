// Decoders with a branch for the first tokens and one for those that follow, as one function.
#pragma once

#include "ir/graph.h"

namespace onnx2nn::passes {

/// An If on an input, of which one branch continues caches and the other has none, becomes the branch
/// with caches: these are emptied first where the other would be taken. Optimum merges decoders so
/// (`use_cache_branch`). An encoder's keys and values, which one branch computes and the other is given,
/// are chosen by an If of their own, one for each attention. Both are simplified as one graph, the caches
/// empty and what is given computed; where they are not the same there, node by node, the If stays.
/// Before inference.
void join_branches(ir::Model& model);

}  // namespace onnx2nn::passes
