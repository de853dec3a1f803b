// The two kinds of failure: Error is the model's or the machine's (reported with its place),
// InternalError is our own bug. Diagnostics collects what is to be reported together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/core.h>

namespace onnx2nn {

/// A local fact ("axis 5 is out of range for rank 3"); who catches it adds the node.
/// Codes in use: "bad-model", "unsupported-operator", "unsupported-attribute", "unsupported-type",
/// "too-large", "io", "bad-option" (what the user asked for).
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message, std::string hint = {})
      : std::runtime_error(message), code_(std::move(code)), hint_(std::move(hint)) {}

  const std::string& code() const { return code_; }
  std::string message() const { return what(); }
  const std::string& hint() const { return hint_; }

 private:
  std::string code_;
  std::string hint_;
};

/// A broken promise inside onnx2nn; never caused by what a model says.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

/// Throws Error(code, formatted message).
template <typename... Args>
[[noreturn]] void fail(std::string_view code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(std::string(code), fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error("io", "<what>: <strerror(error_number)>").
[[noreturn]] void fail_io(const std::string& what, int error_number);

namespace detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const std::string& what);
}

#define ONNX2NN_CHECK(condition, what)                                         \
  do {                                                                         \
    if (!(condition)) [[unlikely]]                                             \
      ::onnx2nn::detail::check_failed(__FILE__, __LINE__, #condition, (what)); \
  } while (false)

enum class Severity : std::uint8_t { Error, Warning, Note };

std::string_view severity_name(Severity severity);  // "error", "warning", "note"

struct Diagnostic {
  Severity severity = Severity::Error;
  std::string code;
  std::string message;
  std::string node;  // empty where the message is about no node
  std::string op_type;
  std::string domain;  // "" is ai.onnx
  std::int64_t opset = 0;
  std::string inputs;  // one input a line
  std::string hint;
};

class Diagnostics {
 public:
  /// Of very many the first are kept, and the last one says how many there are beyond; long texts
  /// are cut.
  void add(Diagnostic diagnostic);
  void add(Severity severity, std::string code, std::string message, std::string hint = {});
  /// What `error` says, as an error about no node.
  void add(const Error& error);
  void append(const Diagnostics& other);

  const std::vector<Diagnostic>& list() const { return list_; }
  bool empty() const { return list_.empty(); }
  bool has_errors() const { return count(Severity::Error) != 0; }
  std::size_t count(Severity severity) const;

  /// For people. Text that came from a model cannot move the cursor or break a line.
  std::string text(std::string_view file) const;
  /// "3 errors in 2 op types; 411 of 414 nodes are convertible"; `nodes` 0 leaves the second half
  /// out.
  std::string summary(std::size_t nodes = 0) const;
  /// A JSON array of objects with the fields' names as keys.
  std::string json() const;

 private:
  std::vector<Diagnostic> list_;
  std::size_t unlisted_ = 0;
};

}  // namespace onnx2nn
