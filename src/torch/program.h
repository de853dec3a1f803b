// The torch program: modules, parameters and functions. Every emitter prints this one thing.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ir/tensor.h"
#include "torch/expr.h"

namespace onnx2nn::torch {

/// A matrix of elements of a tensor of the ONNX file, as part of a parameter.
struct Piece {
  ir::TensorPtr tensor;
  std::int64_t offset = 0;  // of the first element
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;  // elements from one row to the next as stored
  bool transpose = false;   // what is stored are `columns` rows, each `rows` elements
};

/// A parameter or buffer; its value is a tensor of the ONNX file, or pieces of some.
struct Param {
  std::vector<std::string> path;  // components of its state_dict key
  ir::TensorPtr tensor;       // null where it has pieces
  std::vector<Piece> pieces;  // what it is put together from, one after the other
  std::vector<std::int64_t> shape;       // as torch has it
  ir::DType dtype = ir::DType::Float32;  // as torch has it (int4 as int8, ...)
  bool trainable = false;                // nn.Parameter; else a buffer
  bool transpose = false;                // the tensor is 2-D and stored the other way round
  bool persistent = true;                // an entry of the state_dict
  bool exact = false;  // float32 whatever `load` is given: it is multiplied by positions
  std::string onnx_name;
  /// Of the scale or zero point of a weight that the file holds in integers: that weight. They are in
  /// the file only, where `load` makes the weight real by them, and no members of the module.
  std::shared_ptr<Param> quantized;
  std::string key() const;
  /// Of the bytes in the file.
  ir::DType stored_dtype() const { return (tensor ? tensor : pieces.at(0).tensor)->dtype(); }
};
using ParamPtr = std::shared_ptr<Param>;

/// A torch.nn module with its constructor's arguments.
struct Module {
  std::vector<std::string> path;
  std::string type;  // "Conv2d"
  Args args;
  Kwargs keywords;
  std::vector<std::pair<std::string, ParamPtr>> params;  // "weight" -> its value
};
using ModulePtr = std::shared_ptr<Module>;

/// A call of a module of the author's, as the file tells of it.
struct ScopeStep {
  std::string path;  // from the module that calls it: "layer1", "layer.0"
  std::string type;  // its class as the file names it, "BasicBlock"; may be empty
  int call = 0;      // which of the calls of one module: 0 is the first
  bool operator==(const ScopeStep&) const = default;
};
using Scope = std::vector<ScopeStep>;  // from the root inwards
using ScopePtr = std::shared_ptr<const Scope>;
/// The steps with which both begin.
Scope common_scope(const Scope& a, const Scope& b);
/// The components of the path of the innermost module.
std::vector<std::string> components_of(const Scope& scope);

/// A value that is no tensor, set in __init__: a list of strings, a nested list of numbers.
struct Constant {
  std::vector<std::string> path;
  Ex value;
};
using ConstantPtr = std::shared_ptr<Constant>;

struct Stmt;
using Block = std::vector<Stmt>;

struct Stmt {
  enum class Kind : std::uint8_t {
    Assign,  // targets = value; no target: an expression for its effect
    If,      // if value: body else: orelse
    For,     // for targets[0] in value: body
    While,   // while value: body
    Break,   // if value: break
    Return,  // return value
    Def,     // def targets[0](params): body
    Set,     // place = value
  };
  Kind kind = Kind::Assign;
  std::vector<VarPtr> targets;
  Ex value;
  Block body;
  Block orelse;
  std::vector<VarPtr> params;  // of Def
  Ex place;                    // of Set: an attribute
  std::string origin;          // the ONNX node, for --comments
  ScopePtr scope;              // where the author had it; null: not known
};

struct Port {
  std::string onnx_name;
  VarPtr var;        // of an input
  std::string kind;  // tensor, sequence, optional, map
  std::string dtype;
  std::optional<std::vector<std::string>> shape;  // dimensions as text; numbers, symbols or "?"
  std::string type_text;                          // "f32[N, 3, 224, 224]"
};

struct Parameter {
  VarPtr var;
  std::string type;  // its annotation; may be empty
  std::optional<Ex> otherwise;  // its default
};

/// A method of a class; `self` is not among its parameters.
struct Function {
  std::string name;
  std::vector<Parameter> params;
  std::string returns;           // the annotation; may be empty
  std::vector<std::string> doc;  // lines of its docstring
  Block body;
};

struct Class {
  std::string name;
  std::string base = "nn.Module";
  std::vector<std::string> doc;
  std::vector<Function> functions;   // __init__ first
};

/// A second key of a parameter: lm_head.weight is transformer.wte.weight.
struct Tie {
  std::vector<std::string> path;
  ParamPtr param;
};

struct Program {
  std::string class_name;
  std::vector<ModulePtr> modules;
  std::vector<ParamPtr> params;  // those of modules too
  std::vector<Tie> ties;         // of modules' parameters
  std::vector<ConstantPtr> constants;
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  Block forward;  // as it is lowered: one function
  /// What the stage structure makes of it; the last one is the model.
  std::vector<Class> classes;
};

/// Drops assignments that nobody reads, and parameters that only those read. Shape arithmetic
/// becomes Python integers, so that the tensors which it began with are often left over.
void remove_unused(Program& program);

}  // namespace onnx2nn::torch
