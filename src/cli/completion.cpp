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

/// The options of a command that take a value, as patterns of a shell's case; `optional`: those that
/// may stand without one.
std::string with_value(const Command& command, Program program, bool optional) {
  std::string out;
  for_each_option(command, program, [&](const Option& o) {
    if (o.metavar.empty() || o.implied.empty() == optional) return;
    for_each_word(spellings_of(o), [&](std::string_view s) {
      out += fmt::format("{}\"{} {}\"", out.empty() ? "" : "|", command.name, s);
    });
  });
  return out;
}

/// The line of bash that offers what may be a value of `o`.
std::string offer(const Option& o) {
  if (const std::string words = words_for(o); !words.empty())
    return fmt::format("COMPREPLY+=($(compgen -W \"{}\" -- \"$word\"))", words);
  if (o.kind != Kind::Path) return ":";
  if (o.files.empty()) return "_onnx2nn_files \"*\"";
  std::string out = "_onnx2nn_files";
  if (o.files != "/")
    for_each_word(o.files, [&](std::string_view s) { out += fmt::format(" \"*.{}\"", s); });
  return out;
}

// Folders, and files that match one of the patterns.
constexpr std::string_view kBashFiles =
    "_onnx2nn_files() {\n"
    "    local IFS=$'\\n' pattern\n"
    "    COMPREPLY+=($(compgen -d -- \"$word\"))\n"
    "    for pattern in \"$@\"; do\n"
    "        COMPREPLY+=($(compgen -f -X \"!$pattern\" -- \"$word\"))\n"
    "    done\n"
    "}\n";

/// Options, with what may follow one, and what may stand in each place.
std::string for_bash(Program program) {
  const std::string names = command_names(program);
  std::string values, skipped, maybe, options, places;
  for (const Command& c : commands()) {
    if (!offers(program, c.python_only)) continue;
    std::string words;
    int place = 0;
    for_each_option(c, program, [&](const Option& o) {
      const std::string spellings = spellings_of(o);
      if (!spellings.empty()) words += spellings + " ";
      if (o.has_place) {
        places += o.repeatable ? fmt::format("        \"{} \"*) {} ;;\n", c.name, offer(o))
                               : fmt::format("        \"{} {}\") {} ;;\n", c.name, place, offer(o));
        ++place;
      }
      if (o.metavar.empty() || spellings.empty()) return;
      std::string patterns;
      for_each_word(spellings, [&](std::string_view s) {
        patterns += fmt::format("{}\"{} {}\"", patterns.empty() ? "" : "|", c.name, s);
      });
      values += fmt::format("        {})\n            {}\n            return ;;\n", patterns, offer(o));
    });
    for (const bool optional : {false, true}) {
      std::string& list = optional ? maybe : skipped;
      const std::string more = with_value(c, program, optional);
      if (!more.empty()) list += (list.empty() ? "" : "|") + more;
    }
    options += fmt::format("        {}) words=\"{}--help\" ;;\n", c.name, words);
  }
  return std::string(kBashFiles) +
         fmt::format(
             "_onnx2nn() {{\n"
             "    local word=\"${{COMP_WORDS[COMP_CWORD]}}\" before=\"${{COMP_WORDS[COMP_CWORD-1]}}\"\n"
             "    local command=convert first=1 place=0 words=\"\" i\n"
             "    COMPREPLY=()\n"
             "    case \"${{COMP_WORDS[1]}}\" in\n"
             "        {}) [ \"$COMP_CWORD\" -gt 1 ] && command=\"${{COMP_WORDS[1]}}\" first=2 ;;\n"
             "    esac\n"
             "    case \"$command $before\" in\n{}    esac\n"
             "    for ((i = first; i < COMP_CWORD; i++)); do\n"
             "        case \"$command ${{COMP_WORDS[i]}}\" in\n"
             "            {}) i=$((i + 1)) ;;\n"
             "            {})\n"
             "                case \"${{COMP_WORDS[i + 1]}}\" in *[./]*) ;; *) i=$((i + 1)) ;; esac ;;\n"
             "            \"$command -\"*) ;;\n"
             "            *) place=$((place + 1)) ;;\n"
             "        esac\n"
             "    done\n"
             "    case \"$command\" in\n{}    esac\n"
             "    [ \"$COMP_CWORD\" -eq 1 ] && words=\"$words --version {}\"\n"
             "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
             "    case \"$command $place\" in\n{}    esac\n"
             "}}\n"
             "complete -o filenames -F _onnx2nn onnx2nn\n",
             join(split(names, ' '), "|"), values, skipped, maybe, options, names, places);
}

/// Quoted for fish, and for zsh's descriptions.
std::string quoted_word(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

/// Files for fish, those that fit first.
std::string fish_files(const Option& o) {
  return fmt::format("'(__fish_complete_suffix .{})'", o.files.substr(0, o.files.find(' ')));
}

std::string for_fish(Program program) {
  const std::string names = command_names(program);
  std::string out =
      "complete -c onnx2nn -n __fish_use_subcommand -s h -l help -d 'show the help'\n"
      "complete -c onnx2nn -n __fish_use_subcommand -s V -l version -d 'show the version'\n";
  for (const Command& c : commands())
    if (offers(program, c.python_only))
      out += fmt::format("complete -c onnx2nn -n __fish_use_subcommand -a {} -d {}\n", c.name,
                         quoted_word(c.help));
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
          out += fmt::format("complete -c onnx2nn -n {} -f -a {}\n", quoted_word(when), quoted_word(words));
        if (!o.files.empty())
          out += fmt::format("complete -c onnx2nn -n {} -k -a {}\n", quoted_word(when), fish_files(o));
        return;
      }
      std::string line = fmt::format("complete -c onnx2nn -n {}", quoted_word(when));
      for_each_word(spellings_of(o), [&](std::string_view s) {
        line += s.starts_with("--") ? fmt::format(" -l {}", s.substr(2))
                                    : fmt::format(" -s {}", s.substr(1));
      });
      if (!words.empty()) {
        line += fmt::format(" -x -a {}", quoted_word(words));
      } else if (o.files == "/") {
        line += " -x -a '(__fish_complete_directories)'";
      } else if (!o.files.empty()) {
        line += fmt::format(" -r -k -a {}", fish_files(o));
      } else if (!o.metavar.empty() && o.implied.empty()) {
        line += " -r";
      }
      out += line + fmt::format(" -d {}\n", quoted_word(o.help));
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
