#include <fmt/core.h>

#include "cli/parse.h"
#include "onnx2nn/simplify.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

std::string rule_names() {
  std::vector<std::string> names;
  for (const SimplifyRule& r : simplify_rules()) names.push_back(r.name);
  return join(names, " ");
}

/// What may follow an option or stand in a place: words of a list, or nothing but files.
std::string words_for(const Option& o) {
  if (o.kind == Kind::Rule) return rule_names();
  return std::string(o.choices);
}

template <typename Each>
void for_each_option(const Command& command, Program program, Each&& each) {
  for (const Option* o : command.options)
    if (offers(program, o->python_only)) each(*o);
}

std::string spellings_of(const Option& o) {
  std::string out(o.spellings);
  if (!o.also.empty()) out += (out.empty() ? "" : " ") + std::string(o.also);
  return out;
}

std::string command_names(Program program) {
  std::vector<std::string_view> names;
  for (const Command& c : commands())
    if (offers(program, c.python_only)) names.push_back(c.name);
  return join(names, " ");
}

/// Options, with the words that follow one where they are known, and what may stand in a place.
std::string for_bash(Program program) {
  const std::string names = command_names(program);
  std::string out = fmt::format(
      "_onnx2nn() {{\n"
      "    local word=\"${{COMP_WORDS[COMP_CWORD]}}\" before=\"${{COMP_WORDS[COMP_CWORD-1]}}\"\n"
      "    local command=convert words=\"\"\n"
      "    case \"${{COMP_WORDS[1]}}\" in\n"
      "        {}) [ \"$COMP_CWORD\" -gt 1 ] && command=\"${{COMP_WORDS[1]}}\" ;;\n"
      "    esac\n"
      "    case \"$command $before\" in\n",
      join(split(names, ' '), "|"));
  for (const Command& c : commands()) {
    if (!offers(program, c.python_only)) continue;
    for_each_option(c, program, [&](const Option& o) {
      const std::string words = words_for(o);
      if (words.empty() || o.has_place) return;
      std::string patterns;
      for_each_word(spellings_of(o), [&](std::string_view s) {
        patterns += fmt::format("{}\"{} {}\"", patterns.empty() ? "" : "|", c.name, s);
      });
      out += fmt::format(
          "        {})\n            COMPREPLY=($(compgen -W \"{}\" -- \"$word\"))\n"
          "            return ;;\n",
          patterns, words);
    });
  }
  out += "    esac\n    case \"$command\" in\n";
  for (const Command& c : commands()) {
    if (!offers(program, c.python_only)) continue;
    std::string words, places;
    for_each_option(c, program, [&](const Option& o) {
      if (!o.spellings.empty()) words += spellings_of(o) + " ";
      if (o.has_place) places += words_for(o);
    });
    out += fmt::format("        {}) words=\"{}--help{}\" ;;\n", c.name, words,
                       places.empty() ? "" : " " + places);
  }
  out += fmt::format(
      "    esac\n"
      "    [ \"$COMP_CWORD\" -eq 1 ] && words=\"$words --version {}\"\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
      "    [ \"$command\" = completion ] || COMPREPLY+=($(compgen -f -- \"$word\"))\n"
      "}}\n"
      "complete -o filenames -F _onnx2nn onnx2nn\n",
      names);
  return out;
}

/// Quoted for fish, and for zsh's descriptions.
std::string quoted(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string for_fish(Program program) {
  const std::string names = command_names(program);
  std::string out;
  for (const Command& c : commands())
    if (offers(program, c.python_only))
      out += fmt::format("complete -c onnx2nn -n __fish_use_subcommand -a {} -d {}\n", c.name,
                         quoted(c.help));
  for (const Command& c : commands()) {
    if (!offers(program, c.python_only)) continue;
    // A bare model is converted.
    const std::string when =
        c.name == "convert"
            ? fmt::format("not __fish_seen_subcommand_from {}", names.substr(names.find(' ') + 1))
            : fmt::format("__fish_seen_subcommand_from {}", c.name);
    for_each_option(c, program, [&](const Option& o) {
      const std::string words = words_for(o);
      if (o.spellings.empty()) {
        if (!words.empty())
          out += fmt::format("complete -c onnx2nn -n {} -f -a {}\n", quoted(when), quoted(words));
        return;
      }
      std::string line = fmt::format("complete -c onnx2nn -n {}", quoted(when));
      for_each_word(spellings_of(o), [&](std::string_view s) {
        line += s.starts_with("--") ? fmt::format(" -l {}", s.substr(2))
                                    : fmt::format(" -s {}", s.substr(1));
      });
      if (!words.empty()) {
        line += fmt::format(" -x -a {}", quoted(words));
      } else if (!o.metavar.empty() && o.implied.empty()) {
        line += " -r";
      }
      out += line + fmt::format(" -d {}\n", quoted(o.help));
    });
  }
  return out;
}

}  // namespace

std::string completion(std::string_view shell, Program program) {
  if (shell == "fish") return for_fish(program);
  return (shell == "zsh" ? "autoload -U +X compinit && compinit\n"
                           "autoload -U +X bashcompinit && bashcompinit\n"
                         : "") +
         for_bash(program);
}

}  // namespace onnx2nn::cli
