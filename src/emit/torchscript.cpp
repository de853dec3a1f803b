#include "emit/torchscript.h"

#include <set>
#include <unordered_map>
#include <utility>

#include <fmt/core.h>

#include "emit/archive.h"
#include "emit/pickle_weight.h"
#include "emit/script_function.h"
#include "emit/script_helpers.h"
#include "emit/weight_types.h"
#include "support/budget.h"
#include "support/error.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn::emit {
namespace {

using torch::Attribute;
using torch::Instance;

constexpr std::string_view kLayers = "__torch__.layers";
constexpr std::string_view kClasses = "__torch__";
// The semantics of all operators since torch 1.12, and the newest there is.
constexpr std::string_view kVersion = "10\n";

struct Compiled {
  std::string name;
  ScriptTypes arguments;
  ScriptMethod method;
};

/// The classes of a tree of modules: methods as they are called, equal classes once.
class Classes {
 public:
  explicit Classes(const ScriptModel& model) : model_(model) {
    method(*model.root, "forward", model.inputs);
    finish(*model.root);
  }

  /// "__torch__.layers.Conv2d" as ("__torch__.layers", "Conv2d").
  const std::pair<std::string, std::string>& class_of(const Instance& module) const {
    return classes_.at(&module);
  }
  /// The text of the classes whose names begin with this.
  const std::string& code(std::string_view prefix) { return code_[std::string(prefix)]; }
  std::string helpers() const { return script_helper_text(helpers_); }

 private:
  const ScriptMethod& method(const Instance& module, const std::string& name,
                             const ScriptTypes& arguments) {
    auto& methods = methods_[&module];
    for (const auto& m : methods) {
      if (m->name != name) continue;
      if (m->arguments != arguments)
        throw Error("unsupported-output",
                    "TorchScript has no method that takes " + join(m->arguments, ", ") +
                        " once and " + join(arguments, ", ") + " again",
                    "write the model as .py");
      return m->method;
    }
    for (const torch::Function& f : module.functions) {
      if (f.name != name) continue;
      auto compiled = std::make_unique<Compiled>();
      compiled->name = name;
      compiled->arguments = arguments;
      compiled->method = script_method(module, f, arguments,
                                       [this](const Instance& m, const std::string& n,
                                              const ScriptTypes& a) -> const ScriptMethod& {
                                         return method(m, n, a);
                                       });
      size_ += compiled->method.body.size();
      helpers_.insert(compiled->method.helpers.begin(), compiled->method.helpers.end());
      if (model_.budget != nullptr) model_.budget->check(Resource::Source, size_, module.type);
      // Modules inside were compiled meanwhile.
      auto& own = methods_[&module];
      own.push_back(std::move(compiled));
      return own.back()->method;
    }
    throw InternalError("no method " + name + " of " + module.type);
  }

  /// What is inside comes first, whose class is the type of a member.
  void finish(const Instance& module) {
    std::string parameters;
    std::string buffers;
    std::string members;
    for (const Attribute& a : module.attributes) {
      std::string type = "Tensor";
      if (a.module) {
        finish(*a.module);
        const auto& [prefix, name] = classes_.at(a.module.get());
        type = prefix + "." + name;
      } else {
        (a.param->trainable ? parameters : buffers) += script_quote(a.name) + ", ";
      }
      const bool plain = torch::is_ascii_identifier(a.name) && !torch::is_python_keyword(a.name);
      members += plain ? "  " + a.name + " : " + type + "\n"
                       : "  __annotations__[" + script_quote(a.name) + "] = " + type + "\n";
    }
    const std::string head = "(Module):\n  __parameters__ = [" + parameters +
                             "]\n  __buffers__ = [" + buffers + "]\n" + members +
                             "  training : bool\n";
    const std::string_view prefix = module.is_layer ? kLayers : kClasses;
    std::string key = head;
    for (const ScriptMethod* m : all_methods(module))
      key += "|" + m->name + "|" + m->params + "|" + m->returns + "\n" + m->body;
    const bool is_root = &module == model_.root;
    auto& known = is_root ? root_ : same_[std::string(prefix)][key + "|" + (module.is_layer ? module.type : "")];
    if (known.empty()) {
      known = is_root ? claim(prefix, class_name(model_.class_name, "Model"))
                      : claim(prefix, class_name(module.type, "Block"));
      std::string text = "class " + known + head;
      for (const ScriptMethod* m : all_methods(module))
        text += "  def " + m->name + "(self: " + std::string(prefix) + "." + known + m->params +
                ") -> " + m->returns + ":\n" + m->body;
      code_[std::string(prefix)] += text;
    }
    classes_[&module] = {std::string(prefix), known};
  }

  /// Those that are called, each after the functions inside of it.
  std::vector<const ScriptMethod*> all_methods(const Instance& module) {
    std::vector<const ScriptMethod*> out;
    std::set<std::string_view> names;
    const auto add = [&](const ScriptMethod& m) {
      if (!names.insert(m.name).second)
        throw Error("unsupported-output", "TorchScript has no two methods " + m.name + " in one module",
                    "write the model as .py");
      out.push_back(&m);
    };
    for (const auto& m : methods_[&module]) {
      for (const ScriptMethod& other : m->method.others) add(other);
      add(m->method);
    }
    return out;
  }

  /// TorchScript reads names of ASCII alone.
  static std::string class_name(const std::string& wanted, const char* otherwise) {
    return torch::is_ascii_identifier(wanted) && !torch::is_python_keyword(wanted) ? wanted : otherwise;
  }

  /// A name that differs by more than case from others, as on file systems that do not tell.
  std::string claim(std::string_view prefix, const std::string& wanted) {
    std::string name = wanted;
    for (int k = 1; !names_.insert(std::string(prefix) + to_lower(name)).second; ++k)
      name = wanted + "_" + std::to_string(k);
    return name;
  }

  const ScriptModel& model_;
  std::unordered_map<const Instance*, std::vector<std::unique_ptr<Compiled>>> methods_;
  std::unordered_map<const Instance*, std::pair<std::string, std::string>> classes_;
  std::map<std::string, std::map<std::string, std::string>> same_;
  std::string root_;
  std::map<std::string, std::string> code_;
  std::set<std::string> names_;
  std::set<std::string> helpers_;
  std::size_t size_ = 0;
};

/// The tree of modules with its weights.
class Objects {
 public:
  Objects(const ScriptModel& model, const Classes& classes, std::span<const WeightEntry> entries)
      : model_(model), classes_(classes), entries_(entries) {
    module(*model.root);
  }

  std::string finish() { return pickle_.finish(); }
  /// Of the entries that are used, in the order of their records.
  const std::vector<std::size_t>& records() const { return records_; }

 private:
  void module(const Instance& m) {
    const auto& [prefix, name] = classes_.class_of(m);
    pickle_.global(prefix, name);
    pickle_.op(')');
    pickle_.op('\x81');
    pickle_.op('}');
    pickle_.op('(');
    for (const Attribute& a : m.attributes) {
      pickle_.text(a.name);
      if (a.module) {
        module(*a.module);
      } else {
        tensor(*a.param);
      }
    }
    pickle_.text("training");
    pickle_.boolean(false);
    pickle_.op('u');
    pickle_.op('b');
  }

  void tensor(const torch::Param& param) {
    const std::size_t index = model_.entry_of.at(&param);
    const WeightEntry& entry = entries_[index];
    pickle_weight(pickle_, entry, param.trainable, StorageForm::OfDType, [&] {
      const auto [it, is_new] = memo_.emplace(index, memo_.size());
      if (!is_new) return pickle_.recall(it->second);
      pickle_storage(pickle_, entry, records_.size(), StorageForm::OfDType);
      pickle_.memoize(it->second);
      records_.push_back(index);
    });
  }

  const ScriptModel& model_;
  const Classes& classes_;
  std::span<const WeightEntry> entries_;
  Pickle pickle_;
  std::map<std::size_t, std::size_t> memo_;  // of an entry: where its storage is remembered
  std::vector<std::size_t> records_;
};

}  // namespace

void add_torchscript(AtomicFileSet& files, const std::string& path, const ScriptModel& model,
                     std::span<const WeightEntry> entries) {
  check_entries(entries);
  Classes classes(model);
  Objects objects(model, classes, entries);
  std::vector<ArchiveText> before;
  if (!model.origin.empty()) before.push_back({"onnx2nn", std::string(model.origin)});
  before.push_back({"data.pkl", objects.finish()});
  before.push_back({"code/__torch__.py", classes.code(kClasses)});
  if (!classes.code(kLayers).empty())
    before.push_back({"code/__torch__/layers.py", classes.code(kLayers)});
  if (std::string helpers = classes.helpers(); !helpers.empty())
    before.push_back({"code/__torch__/helpers.py", std::move(helpers)});
  before.push_back({"constants.pkl", std::string("\x80\x02).", 4)});
  before.push_back({"byteorder", "little"});
  std::vector<ArchiveWeight> weights;
  for (std::size_t i = 0; i < objects.records().size(); ++i)
    weights.push_back({fmt::format("data/{}", i), &entries[objects.records()[i]]});
  const std::vector<ArchiveText> after{{".data/version", std::string(kVersion)}};
  add_archive(files, path, before, weights, after);
}

}  // namespace onnx2nn::emit
