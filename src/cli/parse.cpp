#include "cli/parse.h"

#include <charconv>
#include <cmath>
#include <filesystem>

#include <fmt/core.h>

#include "onnx2nn/simplify.h"
#include "onnx2nn/version.h"
#include "support/number.h"
#include "support/path.h"
#include "support/suggest.h"
#include "support/text.h"

namespace onnx2nn::cli {
namespace {

/// Wrong usage, for people; never leaves this file.
struct UsageError {
  std::string message;
};

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError{fmt::format(format, std::forward<Args>(args)...)};
}

std::string did_you_mean(std::string_view text, const std::vector<std::string_view>& names) {
  const std::string_view close = closest(text, names);
  return close.empty() ? std::string() : fmt::format("; did you mean {}?", close);
}

// ---- Rules ----

constexpr std::string_view kMoreModels = "more_models";
constexpr std::string_view kHub = "hf://";  // a model of a hub: hf://owner/name/file.onnx

struct Alias {
  std::string_view theirs, ours;
};

// What users of onnxsim know our rules by.
constexpr Alias kOnnxsimRules[] = {
    {"fuse_bn_into_conv", "fuse-batch-norm"},
    {"fuse_add_bias_into_conv", "fuse-arithmetic"},
    {"fuse_pad_into_conv", "fuse-pad"},
    {"fuse_matmul_add_bias_into_gemm", "fuse-matmul-bias"},
    {"fuse_transpose_into_gemm", "fuse-transpose"},
    {"eliminate_nop_cast", "remove-cast"},
    {"eliminate_nop_dropout", "remove-dropout"},
    {"eliminate_nop_pad", "remove-pad"},
    {"eliminate_nop_transpose", "remove-transpose"},
    {"eliminate_identity", "fold-identity"},
    {"fuse_consecutive_transposes", "collapse-transposes"},
    {"fuse_consecutive_reshapes", "collapse-reshapes"},
    {"eliminate_common_subexpression", "merge-equal-nodes"},
    {"eliminate_duplicate_initializer", "merge-equal-initializers"},
};

const std::vector<SimplifyRule>& rules() {
  static const std::vector<SimplifyRule> all = simplify_rules();
  return all;
}

bool is_rule(std::string_view name) {
  return std::any_of(rules().begin(), rules().end(),
                     [&](const SimplifyRule& r) { return r.name == name; });
}

/// onnxsim writes its names with underscores; ours have none.
bool is_of_onnxsim(std::string_view name) {
  return name.find('_') != std::string_view::npos &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string_view::npos;
}

std::string rule(std::string_view spelling, std::string_view text, bool leaves_out) {
  const std::string_view ours = rule_of(text);
  if (is_rule(ours)) return std::string(ours);
  if (ours.empty() && leaves_out) return {};
  std::vector<std::string_view> names;
  for (const SimplifyRule& r : rules()) names.push_back(r.name);
  refuse("{}: there is no rule '{}'{} (onnx2nn simplify --list-rules names them)", spelling,
         printable(text), did_you_mean(text, names));
}

// ---- Values ----

std::optional<std::int64_t> number_of(std::string_view text) {
  std::int64_t value = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), value);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size()) return {};
  return value;
}

std::optional<std::variant<std::int64_t, std::string>> dim_of(std::string_view text, bool fixed) {
  if (const auto number = number_of(text)) {
    if (*number >= 0) return *number;
    if (*number == -1 && !fixed) return *number;
    return {};
  }
  if (fixed || text.empty()) return {};
  if (text == "?" || text == "None") return -1;
  constexpr std::string_view kNever = ",:?*+/()[]{}'\" \t\n=-";
  if (text.find_first_of(kNever) != std::string_view::npos) return {};
  if (text[0] >= '0' && text[0] <= '9') return {};
  return std::string(text);
}

/// NAME:DIMS or DIMS; the name itself may hold colons.
std::optional<GivenShape> shape_of(std::string_view text, bool fixed) {
  GivenShape shape;
  const std::size_t colon = text.rfind(':');
  if (colon != std::string_view::npos) shape.input = text.substr(0, colon);
  const std::string_view dims = colon == std::string_view::npos ? text : text.substr(colon + 1);
  if (dims.empty()) return colon == std::string_view::npos ? std::nullopt : std::optional(shape);
  const bool by_x = dims.find_first_not_of("0123456789x") == std::string_view::npos;
  for (const std::string_view part : split(dims, by_x ? 'x' : ',')) {
    const auto dim = dim_of(strip(part), fixed);
    if (!dim) return {};
    shape.dims.push_back(*dim);
  }
  return shape;
}

Value value_of(const Option& o, std::string_view spelling, std::string_view text) {
  const std::string shown = printable(text);
  if (text.empty()) refuse("{} is given nothing", spelling);
  switch (o.kind) {
    case Kind::Flag:
      return true;
    case Kind::Text:
      if (!is_utf8(text)) refuse("{}: '{}' is not UTF-8", spelling, shown);
      return std::string(text);
    case Kind::Path:
      return std::string(text);
    case Kind::Whole: {
      const auto n = number_of(text);
      if (!n || *n < 0)
        refuse("{}: '{}' is not a whole number from 0", spelling, shown);
      if (*n > o.most) refuse("{}: {} is above {}", spelling, *n, o.most);
      return *n;
    }
    case Kind::Number: {
      const auto x = real_number(text);
      if (!x || !std::isfinite(*x) || *x < 0)
        refuse("{}: '{}' is not a number from 0, such as 1e-3", spelling, shown);
      return *x;
    }
    case Kind::Size:
      if (const auto bytes = size_of(text, kBinary)) return *bytes;
      refuse("{}: '{}' is not a size like 100, 1KB or 1.5GB", spelling, shown);
    case Kind::FileSize:
      if (const auto bytes = size_of(text, kDecimal)) return *bytes;
      refuse("{}: '{}' is not a size like 500MB, 5GB or 2GiB", spelling, shown);
    case Kind::Shape:
    case Kind::FixedShape:
      if (auto shape = shape_of(text, o.kind == Kind::FixedShape)) return *shape;
      refuse("{}: '{}' is not like input:1,3,224,224{}", spelling, shown,
             o.kind == Kind::Shape ? " or input:batch,3,-1,-1" : ", numbers only");
    case Kind::Rule:
      return rule(spelling, text, o.name == "disable" || o.name == "skip_optimization");
    case Kind::Choice: {
      const std::vector<std::string_view> choices = split(o.choices, ' ');
      if (std::find(choices.begin(), choices.end(), text) != choices.end())
        return std::string(text);
      refuse("{}: '{}' is none of {}{}", spelling, shown, join(choices, ", "),
             did_you_mean(text, choices));
    }
  }
  return true;
}

// ---- Words ----

bool has_spelling(const Option& o, std::string_view word) {
  bool found = false;
  for (const std::string_view list : {o.spellings, o.also})
    for_each_word(list, [&](std::string_view s) { found = found || s == word; });
  return found;
}

const Option* find_option(const Command& command, Program program, std::string_view word) {
  for (const Option* o : command.options)
    if (has_spelling(*o, word) && offers(program, o->python_only)) return o;
  return nullptr;
}

bool is_number(std::string_view word) {
  return word.size() > 1 && word[0] == '-' && (word[1] == '.' || (word[1] >= '0' && word[1] <= '9'));
}

bool is_option(std::string_view word) {
  return word.size() > 1 && word[0] == '-' && !is_number(word);
}

[[noreturn]] void refuse_option(const Command& command, Program program, std::string_view word) {
  const std::string shown = printable(word);
  for (const Option* o : command.options)
    if (has_spelling(*o, word))
      refuse("{} is not for this program, which makes no check: it is in the Python package "
             "(pip install \"onnx2nn[verify]\")", shown);
  std::vector<std::string_view> names = {"--help"};
  for (const Option* o : command.options)
    if (offers(program, o->python_only))
      for (const std::string_view list : {o->spellings, o->also})
        for_each_word(list, [&](std::string_view s) { if (s.size() > 2) names.push_back(s); });
  const std::string close = did_you_mean(word, names);
  if (close.empty())
    for (const Command& other : commands())
      if (find_option(other, program, word) != nullptr)
        refuse("{} is no option of {} but of {}", shown, command.name, other.name);
  refuse("unknown option {}{}", shown, close);
}

/// A word that onnxsim takes as one more value of the option before it.
bool is_one_more(const Option& o, std::string_view spelling, std::string_view word) {
  if (!o.repeatable) return false;
  if (o.name == "skip_optimization")
    return is_rule(word) || is_of_onnxsim(word);
  if (o.kind != Kind::Shape && o.kind != Kind::FixedShape) return false;
  if (spelling == "--input_shape") return false;
  const auto shape = shape_of(word, true);
  return shape && !shape->input.empty() && !shape->dims.empty();
}

class Reader {
 public:
  Reader(Parsed& parsed, Program program) : parsed_(parsed), program_(program) {}

  void read(const std::vector<std::string>& words, std::size_t first) {
    for (at_ = first; at_ < words.size(); ++at_) {
      const std::string_view word = words[at_];
      if (!only_places_ && word == "--") {
        only_places_ = true;
        last_ = nullptr;
      } else if (!only_places_ && is_option(word)) {
        option(words, word);
      } else if (last_ != nullptr && is_one_more(*last_, last_spelling_, word)) {
        add(*last_, last_spelling_, word);
      } else {
        places_.push_back(word);
      }
    }
    fill_places();
    for (const Option* o : parsed_.command->options) {
      auto& values = parsed_.values[std::string(o->name)];
      if (!values.empty() || !offers(program_, o->python_only)) continue;
      if (o->required)
        refuse("{} needs {}", parsed_.command->name, o->metavar);
      if (!o->fallback.empty()) values.push_back(value_of(*o, o->name, o->fallback));
    }
    merge_skipped();
  }

 private:
  void option(const std::vector<std::string>& words, std::string_view word) {
    std::string_view spelling = word;
    std::optional<std::string_view> value;
    if (word.starts_with("--")) {
      if (const std::size_t equal = word.find('='); equal != std::string_view::npos) {
        spelling = word.substr(0, equal);
        value = word.substr(equal + 1);
      }
    } else if (word.size() > 2) {
      spelling = word.substr(0, 2);
      value = word.substr(2);  // -oFILE
    }
    const Option* o = find_option(*parsed_.command, program_, spelling);
    if (o == nullptr) refuse_option(*parsed_.command, program_, value ? spelling : word);
    if (o->kind == Kind::Flag) {
      if (value) refuse("{} takes no value", spelling);
      parsed_.values[std::string(o->name)] = {true};
      last_ = nullptr;
      return;
    }
    if (!value && !next_is_value(words, *o, spelling)) {
      if (o->implied.empty()) refuse("{} needs a value: {} {}", spelling, spelling, o->metavar);
      if (o->implied == "all") {
        only_folding_ = true;
      } else {
        add(*o, spelling, o->implied);
      }
      last_ = nullptr;
      return;
    }
    add(*o, spelling, value ? *value : std::string_view(words[++at_]));
    last_ = o;
    last_spelling_ = spelling;
  }

  bool next_is_value(const std::vector<std::string>& words, const Option& o,
                     std::string_view spelling) const {
    if (at_ + 1 >= words.size()) return false;
    const std::string_view next = words[at_ + 1];
    if (is_option(next)) return false;
    if (o.implied.empty()) return true;
    return o.kind == Kind::Size ? size_of(next, kBinary).has_value() : is_one_more(o, spelling, next) || !looks_like_file(next);
  }

  static bool looks_like_file(std::string_view word) {
    return word.find_first_of("./") != std::string_view::npos;
  }

  void add(const Option& o, std::string_view spelling, std::string_view text) {
    auto& values = parsed_.values[std::string(o.name)];
    Value value = value_of(o, spelling, text);
    // A rule of onnxsim's that is not done here needs no leaving out.
    if (o.kind == Kind::Rule && std::get<std::string>(value).empty()) return;
    if (!o.repeatable && !values.empty()) refuse("{} is given twice", spelling);
    values.push_back(std::move(value));
  }

  void fill_places() {
    const bool several = given("jobs");
    // Where the output is said by its option, words are models.
    const bool has_output = given("output") || given("out");
    for (const std::string_view word : places_) {
      const Option* place = nullptr;
      const Option* more = nullptr;
      for (const Option* o : parsed_.command->options) {
        if (!o->has_place) continue;
        if (o->name == kMoreModels) {
          more = o;
        } else if (place == nullptr && offers(program_, o->python_only) && !given(o->name) &&
                   !(several && o->takes_model)) {
          place = o;
        }
      }
      const bool is_first = place != nullptr && place->name == "model";
      const bool is_more = more != nullptr && !is_first &&
                           (place == nullptr ? names_model(word) || has_output || several
                                             : names_model(word) && !place->takes_model);
      if (is_more && offers(program_, more->python_only)) {
        add(*more, more->metavar, word);
      } else if (is_more) {
        refuse("several models at once are for the Python package (pip install onnx2nn)");
      } else if (place != nullptr) {
        add(*place, place->metavar, word);
      } else if (find_command(word) != nullptr) {
        refuse("the command comes first: onnx2nn {} ...", word);
      } else {
        refuse("'{}' is one argument too many", printable(word));
      }
    }
  }

  bool given(std::string_view name) const { return parsed_.values.contains(name); }

  static bool names_model(std::string_view word) {
    return to_lower(word).ends_with(".onnx") || word.starts_with(kHub);
  }

  void merge_skipped() {
    const auto found = parsed_.values.find("skip_optimization");
    if (found == parsed_.values.end()) return;
    auto& disabled = parsed_.values["disable"];
    disabled.insert(disabled.end(), found->second.begin(), found->second.end());
    parsed_.values.erase(found);
    if (only_folding_) parsed_.values["only"].emplace_back(std::string("fold-constants"));
  }

  Parsed& parsed_;
  Program program_;
  std::size_t at_ = 0;
  bool only_places_ = false;   // after --
  bool only_folding_ = false;  // --skip-optimization without a rule
  const Option* last_ = nullptr;
  std::string_view last_spelling_;
  std::vector<std::string_view> places_;
};

/// The command that `words` begin with, or convert for a bare model; and how many words name it.
std::pair<const Command*, std::size_t> command_of(const std::vector<std::string>& words,
                                                  Program program) {
  const std::string_view first = words.front();
  if (const Command* command = find_command(first)) {
    if (!offers(program, command->python_only))
      refuse("{} needs torch and ONNX Runtime: it is in the Python package (pip install "
             "\"onnx2nn[verify]\")", first);
    return {command, 1};
  }
  std::error_code none;
  const bool names_file = first.find_first_of("./") != std::string_view::npos ||
                          std::filesystem::exists(to_path(first), none);
  if (!is_option(first) && !names_file) {
    std::vector<std::string_view> names;
    for (const Command& c : commands())
      if (offers(program, c.python_only)) names.push_back(c.name);
    const std::string close = did_you_mean(first, names);
    refuse("'{}' is neither a command nor a file{}", printable(first),
           close.empty() ? "; the commands are " + join(names, ", ") : close);
  }
  // onnx2nn -q inspect model.onnx
  for (const std::string_view word : words)
    if (find_command(word) != nullptr && !std::filesystem::exists(to_path(word), none))
      refuse("the command comes first: onnx2nn {} ...", word);
  return {find_command("convert"), 0};
}

bool before_dashes(const std::vector<std::string>& words, std::string_view a, std::string_view b) {
  for (const std::string& word : words) {
    if (word == "--") return false;
    if (word == a || word == b) return true;
  }
  return false;
}

/// How this program was built, for reports of faults.
std::string build_facts() {
#if defined(__clang__)
  const std::string compiler =
      fmt::format("clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#elif defined(__GNUC__)
  const std::string compiler = "gcc " __VERSION__;
#else
  const std::string compiler = "an unknown compiler";
#endif
#ifdef NDEBUG
  constexpr std::string_view kChecks = "release";
#else
  constexpr std::string_view kChecks = "with assertions";
#endif
  return fmt::format("{:<14}{}, {}\n", "core", compiler, kChecks);
}

}  // namespace

std::string_view rule_of(std::string_view name) {
  for (const Alias& a : kOnnxsimRules)
    if (a.theirs == name) return a.ours;
  return is_of_onnxsim(name) ? std::string_view() : name;
}

bool Parsed::flag(std::string_view name) const {
  const auto found = values.find(name);
  return found != values.end() && !found->second.empty();
}

std::string Parsed::text_of(std::string_view name) const {
  const auto found = values.find(name);
  if (found == values.end() || found->second.empty()) return {};
  return std::get<std::string>(found->second.front());
}

std::optional<std::int64_t> Parsed::whole(std::string_view name) const {
  const auto found = values.find(name);
  if (found == values.end() || found->second.empty()) return {};
  return std::get<std::int64_t>(found->second.front());
}

std::vector<std::string> Parsed::texts(std::string_view name) const {
  std::vector<std::string> out;
  if (const auto found = values.find(name); found != values.end())
    for (const Value& v : found->second) out.push_back(std::get<std::string>(v));
  return out;
}

std::vector<GivenShape> Parsed::shapes(std::string_view name) const {
  std::vector<GivenShape> out;
  if (const auto found = values.find(name); found != values.end())
    for (const Value& v : found->second) out.push_back(std::get<GivenShape>(v));
  return out;
}

std::optional<std::int64_t> size_of(std::string_view text, double unit) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto number = real_number(text.substr(0, digits));
  std::string suffix = to_lower(strip(text.substr(digits)));
  if (!number) return {};
  double scale = 1;
  if (!suffix.empty() && suffix[0] != 'b' && suffix[0] != 'i') {
    const std::size_t power = std::string_view("kmgt").find(suffix[0]);
    if (power == std::string_view::npos) return {};
    suffix.erase(0, 1);
    scale = std::pow(suffix == "ib" ? kBinary : unit, static_cast<double>(power + 1));
  }
  if (!suffix.empty() && suffix != "b" && suffix != "ib") return {};
  const double bytes = *number * scale;
  if (!(bytes < 9e18)) return {};
  return static_cast<std::int64_t>(bytes);
}

Parsed parse(const std::vector<std::string>& words, Program program, std::size_t columns) {
  Parsed parsed;
  parsed.usage = "onnx2nn COMMAND ...; onnx2nn --help says more";
  if (words.empty()) {
    parsed.error = "nothing was asked for";
    parsed.usage = help(nullptr, program, columns);
    return parsed;
  }
  parsed.json = before_dashes(words, "--json", "--json");
  if (words[0] == "-h" || words[0] == "--help" || words[0] == "help") {
    const Command* about = words.size() > 1 ? find_command(words[1]) : nullptr;
    if (about != nullptr && !offers(program, about->python_only)) about = nullptr;
    parsed.text = help(about, program, columns);
    return parsed;
  }
  if (words[0] == "--version" || words[0] == "-V") {
    parsed.text = fmt::format("onnx2nn {}\n", kVersion);
    if (words.size() > 1 && words[1] == "--verbose") *parsed.text += build_facts();
    return parsed;
  }
  try {
    const auto [command, used] = command_of(words, program);
    parsed.command = command;
    parsed.usage = fmt::format("{}; onnx2nn {} --help lists the options", usage(*command, program),
                               command->name);
    if (before_dashes(words, "-h", "--help")) {
      parsed.text = help(command, program, columns);
      return parsed;
    }
    Reader(parsed, program).read(words, used);
    // Nothing is read where only the rules are to be listed.
    if (command->name == "simplify" && !parsed.flag("list_rules") && parsed.text_of("model").empty())
      refuse("simplify needs MODEL");
  } catch (const UsageError& e) {
    parsed.error = e.message;
  }
  return parsed;
}

}  // namespace onnx2nn::cli
