// The one definition of the command line: what the native program and the Python program offer,
// what it is called, what it takes and what it says about itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

namespace onnx2nn::cli {

/// What a process of either program ends with.
enum ExitCode {
  kDone = 0,
  kWrong = 1,        // wrong, not convertible, or different
  kUsage = 2,        // the command line itself, or it does not fit the model
  kUnreadable = 3,   // a file that cannot be read or written
  kNotChecked = 4,   // done, but the check that was asked for could not be made
  kInternal = 70,    // our own fault
  kInterrupted = 130,
};

/// The Python program has all that the native one has, and the check.
enum class Program : std::uint8_t { Native, Python };

enum class Kind : std::uint8_t {
  Flag,
  Text,         // UTF-8
  Path,
  Whole,        // a whole number from 0 to `most`
  Number,       // a finite number from 0
  Size,         // bytes: 100, 1KB, 1.5GB, in powers of 1024
  FileSize,     // the same in powers of 1000; 1.5GiB in powers of 1024
  Shape,        // name:1,3,224,224 or 1,3,224,224; -1 or a name leaves a dim open
  FixedShape,   // the same with numbers only
  Rule,         // of the simplifier, by our name or by onnxsim's
  Choice,       // one of `choices`
};

struct Option {
  std::string_view name;       // what its value is kept under
  std::string_view spellings;  // "-o --output": in help; empty where it has a place only
  std::string_view also;       // further spellings, which other tools have
  std::string_view metavar;    // empty for a flag
  Kind kind = Kind::Flag;
  std::string_view help;
  std::string_view fallback = {};  // the value where it is not given
  std::string_view implied = {};   // the value where it is given without one
  std::string_view choices = {};   // "bash zsh fish"
  std::string_view files = {};     // what a shell offers: "npz npy", or "/" for folders; all files
  bool repeatable = false;
  bool has_place = false;  // may also be given by its place
  bool takes_model = false;  // an ONNX file may stand in its place
  bool required = false;
  bool python_only = false;
  std::string_view section = "Options";
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
};

struct Example {
  std::string_view command;  // without "onnx2nn "
  std::string_view what;
  bool python_only = false;
};

struct Command {
  std::string_view name;
  std::string_view help;
  std::span<const Option* const> options;
  std::span<const Example> examples;
  bool python_only = false;
};

std::span<const Command> commands();
/// Null where there is none of that name.
const Command* find_command(std::string_view name);
inline bool offers(Program program, bool python_only) {
  return program == Program::Python || !python_only;
}

struct ExitMeaning {
  ExitCode code;
  std::string_view what;
};
inline constexpr ExitMeaning kExitCodes[] = {
    {kDone, "done"},
    {kWrong, "wrong, not convertible, or different"},
    {kUsage, "wrong usage, or options that do not fit the model"},
    {kUnreadable, "a file cannot be read or written"},
    {kNotChecked, "not checked, though a check was asked for"},
    {kInternal, "our own fault"},
    {kInterrupted, "interrupted"}};

/// The words between blanks.
template <typename Each>
void for_each_word(std::string_view text, Each&& each) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    each(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace onnx2nn::cli
