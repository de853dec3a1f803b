// The step `loops`: calls of a list's modules one after the other become a loop over the list.
#pragma once

#include "structure/tree.h"

namespace onnx2nn::structure {

/// Rolls up what repeats in the method's body, whose calls are already `self.layer[0](x)`. What a
/// turn takes from the one before is one variable, what differs from turn to turn is zipped, and
/// what is used of each turn later is collected in a list, which goes to the caller whole where that is
/// the root's one call.
void roll_loops(Tree& tree, Own& own, Method& method);

}  // namespace onnx2nn::structure
