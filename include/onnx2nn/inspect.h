// The public API: what is in an ONNX model, and what differs between two.
//
//     onnx2nn::Inspection i = onnx2nn::inspect_file("model.onnx", {});
//     std::cout << i.total.parameters << " parameters, " << i.total.multiply_adds.all.text << " multiply-adds\n";
//
// Nothing here throws; what goes wrong is in the diagnostics. Nothing is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "onnx2nn/convert.h"

namespace onnx2nn {

struct InspectOptions {
  /// The same as in ConvertOptions. Shapes turn expressions into numbers.
  InputShapes input_shapes;
  FreeDims free_dims;
  std::vector<std::string> data_roots;
  bool drop_undefined_outputs = false;
};

/// A number, an expression over the model's symbols, or "?" where it is not known.
struct Amount {
  struct Term {
    std::int64_t coefficient = 0;
    std::vector<std::string> factors;  // symbols, or functions such as "((N)//(2))"
  };
  std::string text = "0";   // "25557032", "15*N+3"
  std::vector<Term> terms;  // of which it is the sum; none where it is zero or not known
};

/// A sum, of which parts may be unknown.
struct Quantity {
  Amount all;               // not known where a part is not
  Amount known;             // the sum of what is known: the least that it is
  std::size_t unknown = 0;  // parts that are not
};

struct FigureInfo {
  std::size_t nodes = 0;
  std::uint64_t parameters = 0;
  /// Of convolutions, products of matrices, attention and recurrent layers.
  Quantity multiply_adds;
  /// Bytes of what the nodes give.
  Quantity activation_bytes;
};

/// A module of the model's author, as scopes and names of nodes tell of it, or, where there are none, names of weights.
struct BlockInfo {
  std::string path;  // "encoder.layer.0"
  std::size_t depth = 0;
  std::string type;  // its class; may be empty
  FigureInfo figures;
};

struct NodeInfo {
  std::string name;
  std::string op_type;         // "Conv", "com.microsoft::Attention"
  std::string graph;           // the node and attribute whose graph it is in; empty for the model's own
  std::vector<PortInfo> outputs;
  Amount multiply_adds;
};

struct WeightsInfo {
  std::size_t tensors = 0;
  std::uint64_t elements = 0;
  std::uint64_t bytes = 0;
};

/// A file that the model keeps weights in.
struct ExternalFileInfo {
  std::string location;
  std::size_t tensors = 0;
  std::uint64_t bytes = 0;            // of its tensors
  std::uint64_t expected = 0;         // size that it has at least where it is whole
  std::optional<std::uint64_t> size;  // nothing where it is missing
  std::string why;                    // it cannot be used; empty where it can
};

struct Inspection {
  bool readable = false;  // whether the model could be read; without its external data perhaps
  std::vector<DiagnosticInfo> diagnostics;
  std::string diagnostics_text;
  std::int64_t ir_version = 0;
  std::string producer;
  std::string producer_version;
  std::string domain;
  std::int64_t model_version = 0;
  std::string doc_string;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::map<std::string, std::int64_t> opsets;
  std::vector<PortInfo> inputs;
  std::vector<PortInfo> outputs;
  FigureInfo total;
  /// Bytes of values at one time at most, in the file's order of nodes, each value in memory of its own from when it
  /// is made until its last reader is done.
  Amount peak_bytes;
  std::map<std::string, FigureInfo> operators;
  std::vector<BlockInfo> blocks;               // outer ones first
  std::map<std::string, WeightsInfo> weights;  // by element type
  std::vector<std::string> unused_inputs;
  std::vector<std::string> unused_initializers;
  std::vector<ExternalFileInfo> external_files;
  std::vector<NodeInfo> nodes;
};

Inspection inspect_file(const std::string& path, const InspectOptions& options);
/// `bytes` are a serialised ModelProto; `name` stands for the file in messages.
Inspection inspect_bytes(std::string bytes, const InspectOptions& options, const std::string& name = "model");

// ---- Two models ----

/// Something that both models have, and what each says of it.
struct Change {
  std::string what;  // "attribute pads", "output y", "opset ai.onnx"
  std::string before;
  std::string after;
};

struct NodeChange {
  std::string name;  // in the first model
  std::string op_type;
  std::vector<Change> changes;
};

/// Nodes that hang together, of which one model has some and the other none or others in their place.
struct Replacement {
  std::vector<std::string> before;  // operators, in order
  std::vector<std::string> after;
  /// Where that happened: names of the first node of each place.
  std::vector<std::string> places;
};

struct WeightChange {
  std::string name;          // in the first model; empty where it is new
  std::string name_after;    // in the second; empty where it is gone
  std::vector<Change> changes;  // "type", "values", "name"; empty where one model has it only
  bool renamed_only = false;
};

struct NodePlace {
  std::string name;
  std::string op_type;
};

/// What differs between two models. Names of nodes and of values inside, the order of nodes, and attributes that are
/// written at their default, are no difference.
struct ModelDifference {
  bool readable = false;  // both
  std::vector<DiagnosticInfo> diagnostics;
  std::string diagnostics_text;
  bool equal = false;
  std::size_t nodes_before = 0, nodes_after = 0;
  std::size_t equal_nodes = 0;    // with the same attributes, types and operands
  std::size_t renamed_nodes = 0;  // of all that both have
  std::map<std::string, std::size_t> operators_before, operators_after;
  std::vector<Change> interface;  // inputs, outputs, opsets, IR version, producer, metadata
  std::vector<NodePlace> removed, added;
  std::vector<Replacement> replacements;  // of these, the most frequent first
  std::vector<NodeChange> changed;
  std::size_t equal_weights = 0;
  std::vector<WeightChange> weights;  // changed, renamed, removed, added
};

struct DiffOptions {
  std::vector<std::string> data_roots;
  bool drop_undefined_outputs = false;
};

ModelDifference diff_files(const std::string& before, const std::string& after, const DiffOptions& options);
/// Both are serialised ModelProtos; the names stand for the files in messages.
ModelDifference diff_bytes(std::string before, std::string after, const DiffOptions& options,
                           const std::string& name_before = "before", const std::string& name_after = "after");

}  // namespace onnx2nn
