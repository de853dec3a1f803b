// What a command answers: for both programs, which print it as it is.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "cli/parse.h"
#include "cli/results.h"

namespace onnx2nn::cli {

struct Answer {
  ExitCode code = kDone;
  std::string out, err;  // for the streams of these names
};

/// The object that --json prints, with what is always there.
Json result_of(const Parsed& p, ExitCode code);
/// An error that is about no model's content.
Answer failed(const Parsed& p, ExitCode code, const std::string& message);

/// `onnx2nn inspect`. width: of the terminal, 0 where there is none.
Answer inspect(const Parsed& p, std::size_t width);

/// `onnx2nn diff`; the exit code is 1 where the models differ.
Answer diff(const Parsed& p, std::size_t width);

/// Shapes that were given; one without a name is that of the only input of `model`.
InputShapes input_shapes(const Parsed& p, const std::string& model);

/// The answer of a command of this name that takes no part of Python's; nothing for the others. Nothing is thrown.
std::optional<Answer> answer(const Parsed& p, std::size_t width);

}  // namespace onnx2nn::cli
