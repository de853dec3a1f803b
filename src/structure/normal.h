// Normal forms of classes: two modules share a class where these are equal.
#pragma once

#include <string>
#include <vector>

#include "structure/tree.h"

namespace onnx2nn::structure {

/// Whether two expressions are the same, without regard to what variables and modules they name.
bool equal(const torch::Expr& a, const torch::Expr& b);

/// Whether it is an Int, a Float or a Bool: what modules of one class may differ in.
bool is_numeral(const torch::Expr& e);

/// A number in a class's body, which may be another one in another module.
struct Hole {
  torch::ExprPtr value;  // an Int, a Float or a Bool
  std::string name;      // of the argument that it is: "in_channels", "eps"; may be empty
  std::string of;        // the function whose argument it is: "nn.Conv2d"
  std::string member;    // whose constructor it stands in; empty in methods
  bool alone = false;    // the whole argument, not a part of one
};

struct Normal {
  std::string text;  // all but the numbers, variables by their first use
  std::vector<Hole> holes;
};

/// Of the constructors of its members and of its methods.
Normal normal_form(const Own& own);

/// The expression with `numbers[next++]` for each hole, in the order of normal_form; null: as it is.
torch::ExprPtr filled(const torch::ExprPtr& e, const std::vector<torch::ExprPtr>& numbers,
                      std::size_t& next);

/// The same without arguments of torch's constructors that are what they are by default.
torch::ExprPtr without_defaults(const torch::ExprPtr& e);

/// What `self.name = ...` says of a member: the call of its constructor.
torch::Ex constructor(const Member& member);
/// `owner.register_buffer("name", ...)`, for a name that Python has no attribute for.
torch::Ex registration(const torch::Ex& owner, const Member& member);

}  // namespace onnx2nn::structure
