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

/// A value that is no tensor, set in __init__: a list of strings, a nested list of numbers.
struct Constant {
  std::string name;
  Ex value;
};

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
  };
  Kind kind = Kind::Assign;
  std::vector<VarPtr> targets;
  Ex value;
  Block body;
  Block orelse;
  std::vector<VarPtr> params;  // of Def
  std::string origin;          // the ONNX node, for --comments
};

struct Port {
  std::string onnx_name;
  VarPtr var;        // of an input
  std::string kind;  // tensor, sequence, optional, map
  std::string dtype;
  std::optional<std::vector<std::string>> shape;  // dimensions as text; numbers, symbols or "?"
  std::string type_text;                          // "f32[N, 3, 224, 224]"
};

struct Program {
  std::string class_name;
  std::string doc;  // the module's docstring, lines
  std::vector<ModulePtr> modules;
  std::vector<ParamPtr> params;  // those of modules too
  std::vector<Constant> constants;
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  Block forward;
};

/// Drops assignments that nobody reads, and parameters that only those read. Shape arithmetic
/// becomes Python integers, so that the tensors which it began with are often left over.
void remove_unused(Program& program);

}  // namespace onnx2nn::torch
