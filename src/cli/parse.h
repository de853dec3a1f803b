// What was asked for on the command line, of either program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "cli/options.h"

namespace onnx2nn::cli {

/// The shape of an input: numbers, names, or "-1" for a dim that stays open.
struct GivenShape {
  std::string input;  // empty: the only input
  std::vector<std::variant<std::int64_t, std::string>> dims;
};

/// true for a flag; bytes for a size.
using Value = std::variant<bool, std::int64_t, double, std::string, GivenShape>;

struct Parsed {
  const Command* command = nullptr;
  /// By option name; several only where it may be repeated. What was not given has its default.
  std::map<std::string, std::vector<Value>, std::less<>> values;
  /// Help or the version: to be printed, and nothing else done.
  std::optional<std::string> text;
  /// What is wrong with the command line, and how to write it; empty where nothing is.
  std::string error, usage;
  bool json = false;  // even where the rest is wrong

  bool flag(std::string_view name) const;
  std::string text_of(std::string_view name) const;  // empty where it is not given
  std::optional<std::int64_t> whole(std::string_view name) const;
  std::vector<std::string> texts(std::string_view name) const;
  std::vector<GivenShape> shapes(std::string_view name) const;
};

inline constexpr double kBinary = 1024;
inline constexpr double kDecimal = 1000;
/// Bytes of 100, 500MB or 2GiB; `unit` is what a K without "i" stands for, one of the two above.
std::optional<std::int64_t> size_of(std::string_view text, double unit);

/// `words`: without the program's name. `columns`: how wide help may be.
Parsed parse(const std::vector<std::string>& words, Program program, std::size_t columns);

/// The rule of the simplifier behind one of our names or onnxsim's; empty for a name of onnxsim's
/// to which none corresponds.
std::string_view rule_of(std::string_view name);

/// Help for a command, or for the whole program where it is null.
std::string help(const Command* command, Program program, std::size_t columns);
/// "onnx2nn convert [OPTIONS] MODEL [OUTPUT]"
std::string usage(const Command& command, Program program);

/// A script that completes commands, options, rules and shells; `shell`: bash, zsh or fish.
std::string completion(std::string_view shell, Program program);

}  // namespace onnx2nn::cli
