#include "module_name.h"

#include <algorithm>
#include <iterator>

#include "onnx2nn/convert.h"
#include "python_modules.h"
#include "support/clipped.h"
#include "support/identifier.h"
#include "support/path.h"
#include "support/text.h"
#include "torch/python_names.h"

namespace onnx2nn {
namespace {

// What people have installed beside torch, and what that imports in its turn: a file of one of these
// names breaks every program that runs in its folder.
constexpr std::string_view kInstalled[] = {
    "IPython", "PIL", "absl", "accelerate", "attr", "certifi", "charset_normalizer", "click",
    "coloredlogs", "cv2", "datasets", "dateutil", "diffusers", "einops", "filelock", "flatbuffers",
    "fsspec", "functorch", "google", "h5py", "httpx", "huggingface_hub", "humanfriendly", "idna",
    "jax", "jinja2", "joblib", "keras", "librosa", "lightning", "markupsafe", "matplotlib",
    "mpmath", "nanobind", "networkx", "numba", "numpy", "nvidia", "onnx", "onnx2nn", "onnxruntime",
    "onnxscript", "onnxsim", "openvino", "optimum", "packaging", "pandas", "pip", "pkg_resources",
    "psutil", "pyarrow", "pydantic", "pytest", "pytorch_lightning", "regex", "requests", "rich",
    "safetensors", "scipy", "sentencepiece", "setuptools", "six", "skimage", "sklearn", "soundfile",
    "sympy", "tensorboard", "tensorflow", "tensorrt", "tf2onnx", "timm", "tokenizers", "torch",
    "torchaudio", "torchgen", "torchtext", "torchvision", "tqdm", "transformers", "triton",
    "typing_extensions", "ultralytics", "urllib3", "wheel", "yaml"};

template <std::size_t n>
bool holds(const std::string_view (&sorted)[n], std::string_view name) {
  return std::binary_search(std::begin(sorted), std::end(sorted), name);
}

}  // namespace

std::string why_not_imported(const std::string& stem) {
  if (!is_identifier(stem)) return "its name is no identifier";
  if (torch::is_python_keyword(stem)) return "its name is a keyword";
  if (holds(kPythonModules, stem)) return "it hides a module of Python's";
  if (holds(kInstalled, stem)) return "it hides the module " + stem;
  if (stem.starts_with("__") && stem.ends_with("__")) return "Python keeps its name for itself";
  return "";
}

std::string module_name(const std::string& model_path) {
  // Leaves room for suffixes in a file system's 255 bytes.
  constexpr std::size_t kLongest = 200;
  const std::string stem = stem_of(model_path);
  std::string name = join(identifier_words(stem, '\0'), "_");
  if (name.find_first_not_of('_') == std::string::npos) name = "model";
  name.resize(clipped(name, kLongest).size());
  if (!is_identifier(name)) name = "model_" + name;
  if (!why_not_imported(name).empty()) name += "_model";
  return name;
}

}  // namespace onnx2nn
