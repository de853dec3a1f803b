// A model that gives the next token's logits and keeps keys and values of the tokens before: how its
// inputs and outputs are used, one step after the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace onnx2nn::torch {

/// What an input of a decoder takes.
enum class DecoderRole : std::uint8_t {
  Tokens,        // int[batch, new]
  Mask,          // [batch, past + new]; 0 where there is padding
  Positions,     // int[batch, new], or int[new]
  TokenTypes,    // int[batch, new]
  UseCache,      // bool[1] or bool[]: whether there are tokens before
  KeptLogits,    // int[] or int[1]: of how many of the last tokens logits are wanted
  Past,          // all keys and values, one after the other
  States,        // [batch, length, width], of an encoder
  StatesMask,    // [batch, length]; 0 where the encoder's input is padding
};

struct DecoderInput {
  DecoderRole role = DecoderRole::Tokens;
  std::string dtype;     // as torch has it, "int64"
  std::size_t rank = 0;  // of all roles but Past
};

struct Decoder {
  std::vector<DecoderInput> inputs;  // in the order of forward's parameters; Past stands once
  /// Of each key and value before the first token: its sizes as text, "batch" and numbers.
  std::vector<std::vector<std::string>> caches;
  /// Of each, whether the first step computes it of an encoder's states, after which it stays.
  std::vector<bool> of_states;
  std::string cache_dtype;        // as torch has it; empty: that of the weights
  bool of_parameters = false;     // there is one; else there are buffers
  std::size_t length_axis = 0;    // of the caches: their tokens
  std::size_t logits = 0;         // the output that holds them, [batch, new or 1, vocabulary]
  std::size_t present = 0;        // the first of the outputs that are the caches with the new tokens
  std::size_t outputs = 0;        // how many there are
  bool padded = true;             // whether a prompt may have padding in front

  bool has(DecoderRole role) const {
    for (const DecoderInput& i : inputs)
      if (i.role == role) return true;
    return false;
  }
};

}  // namespace onnx2nn::torch
