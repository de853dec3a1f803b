// What some modules of a class have and others lack: a member that takes and gives one tensor, an activation,
// the sum with what came in.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "structure/normal.h"

namespace onnx2nn::structure {

struct OptionalPart {
  std::string name;         // of the member, or of the flag that says whether it is called: "relu"
  std::optional<int> call;  // the variable that a call sets; nothing for a member
};

/// Parts that a module may lack, each with the module's normal form without it.
std::vector<std::pair<OptionalPart, Normal>> optional_parts(const Own& own);

/// Whether the statement is what modules without the part lack.
bool is_of(const torch::Stmt& statement, const OptionalPart& part);

/// Lets the statements of a method ask for the part: a member that is not None, or the flag `self.name`.
void make_optional(Method& method, const OptionalPart& part);

}  // namespace onnx2nn::structure
