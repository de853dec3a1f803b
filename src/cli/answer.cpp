#include "cli/answer.h"

#include "support/error.h"
#include "support/text.h"

namespace onnx2nn::cli {

Json result_of(const Parsed& p, ExitCode code) {
  Json out;
  out["command"] = p.command ? Json(p.command->name) : Json(nullptr);
  const std::string model = p.text_of("model");
  out["model"] = model.empty() ? Json(nullptr) : Json(model);
  out["ok"] = code == kDone;
  out["checked"] = false;
  out["exit_code"] = static_cast<int>(code);
  out["error"] = nullptr;
  out["diagnostics"] = Json::array();
  return out;
}

Answer failed(const Parsed& p, ExitCode code, const std::string& message) {
  if (!p.json) return {code, "", "onnx2nn: error: " + message + "\n"};
  Json out = result_of(p, code);
  out["error"] = message;
  return {code, text_of(out) + "\n", ""};
}

InputShapes input_shapes(const Parsed& p, const std::string& model) {
  InputShapes out;
  for (GivenShape& shape : p.shapes("input_shape")) {
    if (shape.input.empty()) {
      const Conversion c = convert_file(model, {});
      if (c.inputs().size() != 1) {
        std::vector<std::string> names;
        for (const PortInfo& i : c.inputs()) names.push_back(printable(i.name));
        // A model that cannot be read is refused later, with the reason.
        if (!c.readable()) continue;
        fail("bad-option", "--input_shape needs a name: the inputs are {}", join(names, ", "));
      }
      shape.input = c.inputs()[0].name;
    }
    out[shape.input] = std::move(shape.dims);
  }
  return out;
}

std::optional<Answer> answer(const Parsed& p, std::size_t width) {
  try {
    if (p.command->name == "inspect") return inspect(p, width);
    if (p.command->name == "diff") return diff(p, width);
    return std::nullopt;
  } catch (const Error& e) {
    return failed(p, e.code() == "bad-option" ? kUsage : kUnreadable,
                  e.hint().empty() ? e.message() : e.message() + "; " + e.hint());
  } catch (const std::exception& e) {
    return failed(p, kInternal, e.what());
  }
}

}  // namespace onnx2nn::cli
