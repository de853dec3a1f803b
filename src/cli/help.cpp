#include <algorithm>

#include <fmt/core.h>

#include "cli/parse.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

constexpr std::size_t kNarrowest = 30;  // columns
constexpr std::size_t kWidest = 100;
constexpr std::size_t kLabels = 24;  // where explanations begin, two columns of space included

/// `text` in lines of at most `width` columns; words are not broken.
std::vector<std::string> wrapped(std::string_view text, std::size_t width) {
  std::vector<std::string> lines(1);
  for_each_word(text, [&](std::string_view word) {
    std::string& line = lines.back();
    if (!line.empty() && display_width(line) + 1 + display_width(word) > width) {
      lines.emplace_back(word);
    } else {
      if (!line.empty()) line += ' ';
      line += word;
    }
  });
  return lines;
}

std::string paragraph(std::string_view text, std::size_t columns, std::string_view indent = "") {
  std::string out;
  for (const std::string& line : wrapped(text, columns - indent.size()))
    out += fmt::format("{}{}\n", indent, line);
  return out;
}

/// A label and what it means, side by side where there is room.
std::string entry(std::string_view label, std::string_view what, std::size_t columns) {
  const bool beside = columns >= 60 && display_width(label) + 4 <= kLabels;
  const std::size_t at = columns >= 60 ? kLabels : 6;
  std::string out = fmt::format("  {}", label);
  bool first = true;
  for (const std::string& line : wrapped(what, columns - at)) {
    if (first && beside) {
      out += std::string(at - 2 - display_width(label), ' ');
    } else {
      out += "\n" + std::string(at, ' ');
    }
    out += line;
    first = false;
  }
  return out + "\n";
}

std::string label_of(const Option& o) {
  if (o.spellings.empty()) return std::string(o.metavar);
  std::string out = join(split(o.spellings, ' '), ", ");
  if (o.metavar.empty()) return out;
  return out + (o.implied.empty() ? fmt::format(" {}", o.metavar) : fmt::format(" [{}]", o.metavar));
}

std::string meaning_of(const Option& o) {
  std::string out(o.help);
  if (o.repeatable) out += "; may be repeated";
  if (!o.implied.empty() && o.kind == Kind::Size)
    out += fmt::format("; {} where none is given", o.implied);
  if (!o.fallback.empty()) out += fmt::format(" (default: {})", o.fallback);
  if (!o.also.empty()) out += fmt::format(" (also {})", join(split(o.also, ' '), ", "));
  return out;
}

std::string section_of(const Option& o) {
  return std::string(o.spellings.empty() ? std::string_view("Arguments") : o.section);
}

std::string examples(std::span<const Example> list, Program program, std::size_t columns) {
  std::string out = "\nExamples:\n";
  for (const Example& e : list)
    if (offers(program, e.python_only))
      out += fmt::format("  onnx2nn {}\n{}", e.command, paragraph(e.what, columns, "      "));
  return out;
}

constexpr std::string_view kNoCheck =
    "This program does not check what it writes, and says so: that needs torch and ONNX Runtime, "
    "which the Python package has (pip install \"onnx2nn[verify]\").";

std::string overview(Program program, std::size_t columns) {
  std::string out = program == Program::Python
                        ? "ONNX models as readable, verified PyTorch source.\n"
                        : "ONNX models as readable PyTorch source.\n";
  if (program == Program::Native) out += "\n" + paragraph(kNoCheck, columns);
  out += "\nUsage: onnx2nn MODEL [OUTPUT] [OPTIONS]\n       onnx2nn COMMAND ...\n\nCommands:\n";
  for (const Command& c : commands())
    if (offers(program, c.python_only)) out += entry(c.name, c.help, columns);
  out += "\nOptions:\n" + entry("-h, --help", "show this help, or that of a command", columns) +
         entry("-V, --version", "show the version; with --verbose, all that a report of a fault needs", columns) + "\nExamples:\n";
  for (const Command& c : commands())
    if (offers(program, c.python_only) && c.name != "completion")
      out += fmt::format("  onnx2nn {}\n{}", c.examples[0].command,
                         paragraph(c.examples[0].what, columns, "      "));
  out += "\nExit codes:\n";
  for (const ExitMeaning& e : kExitCodes)
    out += entry(fmt::format("{:<4}", static_cast<int>(e.code)), e.what, columns);
  return out + "\n" + paragraph("onnx2nn COMMAND --help says more of a command.", columns);
}

}  // namespace

std::string usage(const Command& command, Program program) {
  std::string out = fmt::format("onnx2nn {}", command.name);
  bool options = false;
  std::string places;
  for (const Option* o : command.options) {
    if (!offers(program, o->python_only)) continue;
    if (!o->has_place) {
      options = true;
    } else {
      const std::string name(o->metavar);
      places += o->required ? " " + name : " [" + name + "]";
    }
  }
  return out + (options ? " [OPTIONS]" : "") + places;
}

std::string help(const Command* command, Program program, std::size_t columns) {
  columns = std::clamp(columns, kNarrowest, kWidest);
  if (command == nullptr) return overview(program, columns);
  std::string what(command->help);
  what[0] = static_cast<char>(what[0] - 'a' + 'A');
  std::string out = paragraph(what + ".", columns) +
                    fmt::format("\nUsage: {}\n", usage(*command, program));
  std::vector<std::string> sections;
  for (const Option* o : command->options)
    if (offers(program, o->python_only) &&
        std::find(sections.begin(), sections.end(), section_of(*o)) == sections.end())
      sections.push_back(section_of(*o));
  if (std::find(sections.begin(), sections.end(), "Options") == sections.end())
    sections.emplace_back("Options");
  for (const std::string& section : sections) {
    out += "\n" + paragraph(section + ":", columns);
    for (const Option* o : command->options)
      if (offers(program, o->python_only) && section_of(*o) == section)
        out += entry(label_of(*o), meaning_of(*o), columns);
    if (section == "Options") out += entry("-h, --help", "show this help", columns);
  }
  return out + examples(command->examples, program, columns);
}

}  // namespace onnx2nn::cli
