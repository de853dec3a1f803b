// Names that Python, torch's modules and the emitted file itself keep.
#pragma once

#include <string_view>

namespace onnx2nn::torch {

/// ASCII letters, digits and underscores, no digit first. Others that Python takes are left out: it
/// changes some of them (NFKC), so that two names could become one.
bool is_ascii_identifier(std::string_view s);

/// Keywords, soft ones that start a statement among them.
bool is_python_keyword(std::string_view s);

/// What can be given as `name=...` in a call: no keyword, nor a name that Python changes inside a
/// class or keeps for itself.
bool is_argument_name(std::string_view s);

/// What can be written after a dot: `self.name`.
bool is_attribute_name(std::string_view s);

/// What the emitted file calls by these names: modules, builtins and its own functions.
bool is_source_name(std::string_view s);

/// Attributes and methods of every nn.Module, in any version of torch; no submodule or weight may
/// be called so.
bool is_module_member(std::string_view s);
/// What nn.ModuleDict has besides.
bool is_container_member(std::string_view s);

}  // namespace onnx2nn::torch
