// The C interface: the command lines of the Python and of the native program.
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "c/result.h"
#include "cli/answer.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "onnx2nn/onnx2nn.h"
#include "onnx2nn/simplify.h"
#include "support/text.h"

namespace cli = onnx2nn::cli;
using cli::Json;
using onnx2nn::c::made;
using onnx2nn::c::require;
using onnx2nn::c::say;

namespace {

Json json_of(const cli::GivenShape& shape) {
  Json dims = Json::array();
  for (const auto& d : shape.dims) {
    if (const auto* symbol = std::get_if<std::string>(&d)) {
      dims.push_back(cli::model_text(*symbol));
    } else if (const std::int64_t n = std::get<std::int64_t>(d); n < 0) {
      dims.push_back(nullptr);
    } else {
      dims.push_back(n);
    }
  }
  return Json::array({cli::model_text(shape.input), std::move(dims)});
}

Json json_of(const cli::Value& value) {
  return std::visit(
      [](const auto& v) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, cli::GivenShape>) {
          return json_of(v);
        } else {
          return v;
        }
      },
      value);
}

std::vector<std::string> words_of(const char* const* words, size_t count) {
  if (count > 0) require(words, "words");
  std::vector<std::string> out;
  for (size_t i = 0; i < count; ++i) {
    require(words[i], "a word");
    out.emplace_back(words[i]);
  }
  return out;
}

/// The value of each option of the command, also of those that were not given.
Json values_of(const cli::Parsed& parsed) {
  Json out = Json::object();
  for (const cli::Option* o : parsed.command->options) {
    const auto found = parsed.values.find(o->name);
    const bool given = found != parsed.values.end() && !found->second.empty();
    Json value;
    if (o->repeatable) {
      value = Json::array();
      if (given)
        for (const cli::Value& v : found->second) value.push_back(json_of(v));
    } else if (given) {
      value = json_of(found->second.front());
    } else if (o->kind == cli::Kind::Flag) {
      value = false;
    }
    out[std::string(o->name)] = std::move(value);
  }
  return out;
}

Json json_of(const cli::Option& o) {
  Json spellings = Json::array();
  for (const std::string_view list : {o.spellings, o.also})
    cli::for_each_word(list, [&](std::string_view word) { spellings.push_back(word); });
  return {{"name", o.name},
          {"spellings", std::move(spellings)},
          {"metavar", o.metavar},
          {"help", o.help},
          {"default", o.fallback},
          {"repeatable", o.repeatable},
          {"has_place", o.has_place},
          {"python_only", o.python_only}};
}

}  // namespace

extern "C" {

onnx2nn_status onnx2nn_rules(onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    Json& rules = r.said["rules"] = Json::object();
    for (const onnx2nn::SimplifyRule& rule : onnx2nn::simplify_rules()) rules[rule.name] = rule.what;
    say(r, {});
  });
}

onnx2nn_status onnx2nn_rule_of(const char* name, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    require(name, "name");
    r.said["rule"] = cli::rule_of(name);
    say(r, {});
  });
}

onnx2nn_status onnx2nn_printable(const void* text, size_t size, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    if (size > 0) require(text, "text");
    r.said["text"] = onnx2nn::printable({static_cast<const char*>(text), size});
    say(r, {});
  });
}

onnx2nn_status onnx2nn_command_line(onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    Json& commands = r.said["commands"] = Json::array();
    for (const cli::Command& c : cli::commands()) {
      Json options = Json::array();
      for (const cli::Option* o : c.options) options.push_back(json_of(*o));
      commands.push_back({{"name", c.name},
                          {"help", c.help},
                          {"options", std::move(options)},
                          {"python_only", c.python_only}});
    }
    Json& codes = r.said["exit_codes"] = Json::array();
    for (const cli::ExitMeaning& e : cli::kExitCodes)
      codes.push_back(Json::array({static_cast<int>(e.code), e.what}));
    say(r, {});
  });
}

onnx2nn_status onnx2nn_parse_command_line(const char* const* words, size_t count, size_t columns,
                                          onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const cli::Parsed parsed = cli::parse(words_of(words, count), cli::Program::Python, columns);
    r.said["command"] = parsed.command ? Json(parsed.command->name) : Json(nullptr);
    r.said["values"] = parsed.command ? values_of(parsed) : Json::object();
    r.said["text"] = parsed.text ? Json(cli::model_text(*parsed.text)) : Json(nullptr);
    r.said["error"] = cli::model_text(parsed.error);
    r.said["usage"] = cli::model_text(parsed.usage);
    r.said["json"] = parsed.json;
    say(r, {});
  });
}

onnx2nn_status onnx2nn_answer(const char* const* words, size_t count, size_t columns,
                              onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    const cli::Parsed parsed = cli::parse(words_of(words, count), cli::Program::Python, columns);
    const auto said = cli::answer(parsed, columns);
    if (!said) throw onnx2nn::Error("bad-option", "this command is not answered by the core alone");
    r.said["code"] = static_cast<int>(said->code);
    r.said["out"] = cli::model_text(said->out);
    r.said["err"] = cli::model_text(said->err);
    say(r, {});
  });
}

onnx2nn_status onnx2nn_completion(const char* shell, onnx2nn_result** result) {
  return made(result, [&](onnx2nn_result& r) {
    require(shell, "shell");
    r.said["script"] = cli::completion(shell, cli::Program::Python);
    say(r, {});
  });
}

int onnx2nn_run(int argc, const char* const* argv) {
  return cli::run(argv == nullptr ? 0 : argc, argv);
}

}  // extern "C"
