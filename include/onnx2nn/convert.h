// The public API: an ONNX model in, PyTorch source and weights out.
//
//     onnx2nn::Conversion c = onnx2nn::convert_file("model.onnx", {});
//     if (c.ok()) c.write("model.py");
//     else std::cerr << c.diagnostics_text();
//
// Nothing here throws; what goes wrong is in the diagnostics.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace onnx2nn {

/// Torch code that a user supplies for an operator.
struct CustomOp {
  std::string domain;  // "" is ai.onnx
  std::string op_type;
  std::string name;    // of the function
  std::string source;  // its `def`; called with the inputs, then the attributes as keywords
};

/// One dim of a shape that is given for an input: its size, a negative number to leave it as the
/// model has it, or a name. Dims of one name are of one size, also those that the model calls so.
using InputDim = std::variant<std::int64_t, std::string>;
/// By the name of the input.
using InputShapes = std::map<std::string, std::vector<InputDim>>;

/// Dims of inputs that the model fixes, and that are to be open.
struct FreeDims {
  /// The first dims of inputs, where they are of one size.
  bool batch = false;
  std::vector<std::pair<std::string, std::int64_t>> axes;  // of the input of that name
  bool empty() const { return !batch && axes.empty(); }
};

struct ConvertOptions {
  bool simplify = true;
  /// Folds batch norms and the like into the weights before them, for inference.
  bool fuse = false;
  /// Shapes for inputs, in place of dims that the model leaves open.
  InputShapes input_shapes;
  FreeDims free_dims;
  std::string class_name;    // from the file's name where empty
  std::string weights_name;  // "<stem>.safetensors" where empty; a name in ".pth" is a state_dict
  bool trace = false;        // `x = _trace(name, x)` after each statement
  bool flat = false;         // one class with all statements, not one for each of the author's
  bool comments_origin = false;
  bool tp_plan = false;  // a function tp_plan() that splits the model over processes
  std::vector<CustomOp> custom_ops;
  bool allow_unknown = false;  // stubs that raise for operators that are not supported
  /// Bytes of weights above which safetensors are several files and an index, as Hugging Face's
  /// loaders read; 5,000,000,000 where it is not given.
  std::optional<std::uint64_t> max_shard_size;
  /// Replaces files that onnx2nn did not write.
  bool force = false;
  /// Folders below which external data may lie, besides the model's own.
  std::vector<std::string> data_roots;
  /// Leaves out graph outputs that nothing defines, instead of refusing the model.
  bool drop_undefined_outputs = false;
};

/// One input or output of the model.
struct PortInfo {
  std::string name;     // in ONNX
  std::string py_name;  // in the source; empty for outputs
  std::string kind;     // "tensor", "sequence", "optional" or "map"
  std::string dtype;    // "float32", "int64", "string", ...
  std::optional<std::vector<std::string>>
      shape;  // numbers, symbols or "?"; nothing where the rank is unknown
};

/// A matrix of elements of a tensor of the model, as part of a weight.
struct WeightPiece {
  std::string file;  // where the tensor's bytes lie; empty where only in memory
  std::uint64_t file_offset = 0;
  std::uint64_t nbytes = 0;  // of the tensor
  std::int64_t offset = 0;   // of the first element, in elements
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  std::int64_t stride = 0;  // elements from one row to the next as stored
  bool transpose = false;   // what is stored are `columns` rows
};

/// One parameter or buffer.
struct WeightInfo {
  std::string key;    // in the state_dict
  std::string dtype;  // of the bytes: where the weight is stored in integers, theirs
  std::vector<std::int64_t> shape;
  bool trainable = false;
  bool is_buffer = false;
  bool persistent = true;  // an entry of the state_dict
  bool exact = false;      // float32 whatever dtype the others are loaded in
  std::string file;  // where its bytes lie; empty where only in memory
  std::uint64_t offset = 0;
  std::uint64_t nbytes = 0;
  bool transpose = false;  // the bytes are those of a matrix [shape[1], shape[0]]
  /// Of a scale or zero point: the key of the weight in integers that it makes real. It is in the
  /// file, but not in the state_dict.
  std::string quantized;
  std::vector<WeightPiece> pieces;  // one after the other; `file` and `offset` say nothing then
  std::string onnx_name;
};

/// A module of the tree that the source makes.
struct ModuleInfo {
  std::string path;       // "layer1.0"; empty: the model itself
  std::string type;       // what its class is called: "BasicBlock", "Conv2d"
  bool is_layer = false;  // of torch.nn
};

struct DiagnosticInfo {
  std::string severity, code, message, node, op_type, domain, inputs, hint;
  std::int64_t opset = 0;
};

struct ConversionStats {
  std::size_t nodes_before = 0;
  std::size_t nodes_after = 0;
  std::uint64_t weight_bytes = 0;
  std::map<std::string, std::size_t> op_types;  // of the model, before simplification
  std::map<std::string, std::size_t> rules;     // what each simplification did
  std::int64_t ir_version = 0;
  std::string producer;
  std::map<std::string, std::int64_t> opsets;
};

/// The result of a conversion; keeps the model and its files.
class Conversion {
 public:
  struct Impl;
  explicit Conversion(std::shared_ptr<Impl> impl);

  bool ok() const;
  const std::string& source() const;
  const std::string& class_name() const;
  const std::vector<DiagnosticInfo>& diagnostics() const;
  /// For people; `file` names the model.
  std::string diagnostics_text() const;
  std::string diagnostics_json() const;
  /// Whether the model could be read at all; else it is no ONNX model, or its files are missing.
  bool readable() const;
  const std::vector<PortInfo>& inputs() const;
  const std::vector<PortInfo>& outputs() const;
  const std::vector<WeightInfo>& weights() const;
  const ConversionStats& stats() const;
  /// The tree of modules, each before those inside it; empty where the page is flat, or there is none.
  const std::vector<ModuleInfo>& modules() const;
  /// The bytes of weight `i` as the model holds them; of the tensor of `piece` where it has pieces.
  std::string_view weight_bytes(std::size_t i, std::size_t piece = 0) const;
  /// Writes the source to `python_path` and the weights beside it (or to `weights_path`), all or
  /// nothing. Returns the files written, or nothing and an added diagnostic, which is there until
  /// the next call.
  std::vector<std::string> write(const std::string& python_path,
                                 const std::string& weights_path = "");

 private:
  std::shared_ptr<Impl> impl_;
};

/// Where the external data of a model lies, links resolved, by the locations that the model names.
/// What is missing, or may not be read, is left out.
std::map<std::string, std::string> external_files(const std::string& model,
                                                  const std::vector<std::string>& locations,
                                                  const std::vector<std::string>& data_roots);

Conversion convert_file(const std::string& path, const ConvertOptions& options);
/// `bytes` are a serialised ModelProto; `name` stands for the file in messages.
Conversion convert_bytes(std::string bytes, const ConvertOptions& options,
                         const std::string& name = "model");

/// Why these files may not be written for the model at `model_path` (empty: given as bytes): they are
/// there and not by onnx2nn, or are the model. Empty where they may. Writing asks by itself; this
/// is for asking before long work.
std::vector<DiagnosticInfo> check_outputs(const std::string& model_path,
                                          const std::vector<std::string>& paths, bool force);

/// Puts the finished file `from` in its place at `path`, by the rules of `check_outputs`. Returns what
/// went wrong; `from` may be gone then.
std::vector<DiagnosticInfo> publish_file(const std::string& from, const std::string& path,
                                         const std::string& model_path, bool force);

/// What a module made from a model is called where nobody says: the model's name, without folder and
/// suffix, as a name that Python imports and that hides no module of Python, torch or ours.
std::string module_name(const std::string& model_path);

}  // namespace onnx2nn
