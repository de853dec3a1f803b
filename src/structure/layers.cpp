#include "structure/layers.h"

#include <optional>
#include <utility>

#include "support/error.h"
#include "support/text.h"

namespace onnx2nn::structure {
namespace {

using torch::Args;
using torch::aten;
using torch::Ex;
using torch::Expr;
using torch::ExprKind;
using torch::ExprPtr;
using torch::kNone;
using torch::list;
using torch::op;

/// The value of a keyword, or what is so otherwise.
Ex keyword(const torch::Kwargs& keywords, std::string_view name, Ex otherwise = {}) {
  for (const auto& [key, value] : keywords)
    if (key == name) return value;
  return otherwise;
}

/// One number for each of `n` dimensions.
Ex each_of(const Ex& value, std::size_t n) {
  if (value->kind != ExprKind::Int) {
    if (value->kind != ExprKind::Tuple) return value;
    return list(Args(value->args.begin(), value->args.end()));
  }
  return list(Args(n, value));
}

/// "Conv2d" has 2.
std::size_t dimensions(const std::string& type) {
  return type.size() > 1 && is_digit(type[type.size() - 2])
             ? static_cast<std::size_t>(type[type.size() - 2] - '0')
             : 0;
}

class Layer {
 public:
  Layer(const torch::Module& layer, const std::map<std::string, torch::ParamPtr>& ties,
        int& next_var)
      : layer_(layer), next_var_(next_var) {
    out_ = std::make_shared<torch::Instance>();
    out_->type = layer.type;
    out_->is_layer = true;
    const std::string path = join(layer.path, ".") + ".";
    for (const auto& [name, param] : layer.params) {
      const auto tie = ties.find(path + name);
      out_->attributes.push_back({name, tie == ties.end() ? param : tie->second, nullptr});
    }
    for (auto it = ties.lower_bound(path); it != ties.end() && it->first.starts_with(path); ++it)
      if (!has(it->first.substr(path.size())))
        out_->attributes.push_back({it->first.substr(path.size()), it->second, nullptr});
  }

  torch::InstancePtr run() {
    const std::string& t = layer_.type;
    if (is_recurrent(t)) {
      recurrent();
      return std::move(out_);
    }
    forward_.name = "forward";
    const Ex x = param("input", "Tensor");
    if (t.starts_with("ConvTranspose") || t.starts_with("Conv")) {
      give(convolution(x));
    } else if (t == "Linear") {
      give(aten("linear", {x, weight("weight"), weight("bias")}));
    } else if (t == "Embedding") {
      give(aten("embedding", {weight("weight"), x}));
    } else if (t.starts_with("BatchNorm")) {
      give(aten("batch_norm",
                {x, weight("weight"), weight("bias"), weight("running_mean"),
                 weight("running_var"), false, keyword(layer_.keywords, "momentum", 0.1),
                 keyword(layer_.keywords, "eps", 1e-5), true}));
    } else if (t.starts_with("InstanceNorm")) {
      give(aten("instance_norm", {x, weight("weight"), weight("bias"), kNone, kNone, true, 0.1,
                                  keyword(layer_.keywords, "eps", 1e-5), true}));
    } else if (t == "LayerNorm") {
      give(aten("layer_norm", {x, each_of(argument(0, "normalized_shape"), 1), weight("weight"),
                               weight("bias"), keyword(layer_.keywords, "eps", 1e-5)}));
    } else if (t == "RMSNorm") {
      give(aten("rms_norm", {x, each_of(argument(0, "normalized_shape"), 1), weight("weight"),
                             keyword(layer_.keywords, "eps")}));
    } else if (t == "GroupNorm") {
      give(aten("group_norm", {x, argument(0, "num_groups"), weight("weight"), weight("bias"),
                               keyword(layer_.keywords, "eps", 1e-5)}));
    } else if (t == "PReLU") {
      give(aten("prelu", {x, weight("weight")}));
    } else {
      throw InternalError("a layer that is not known in terms of ATen: " + t);
    }
    out_->functions.push_back(std::move(forward_));
    return std::move(out_);
  }

 private:
  bool has(std::string_view name) const {
    for (const auto& a : out_->attributes)
      if (a.name == name) return true;
    return false;
  }
  Ex weight(const std::string& name) const {
    return has(name) ? torch::attribute(torch::self(), name) : Ex();
  }
  Ex argument(std::size_t i, std::string_view name) const {
    return i < layer_.args.size() ? layer_.args[i] : keyword(layer_.keywords, name);
  }

  torch::VarPtr var(const std::string& name, std::string type) {
    auto v = std::make_shared<torch::Var>();
    v->hint = name;
    v->name = name;
    v->type = std::move(type);
    v->id = next_var_++;
    return v;
  }
  Ex param(const std::string& name, std::string type) {
    const torch::VarPtr v = var(name, std::move(type));
    forward_.params.push_back({v, v->type, std::nullopt});
    return Ex(v);
  }
  void set(std::vector<torch::VarPtr> targets, const Ex& value) {
    torch::Stmt s;
    s.targets = std::move(targets);
    s.value = value;
    forward_.body.push_back(std::move(s));
  }
  void give(const Ex& value) {
    torch::Stmt s;
    s.kind = torch::Stmt::Kind::Return;
    s.value = value;
    forward_.body.push_back(std::move(s));
  }

  Ex convolution(const Ex& x) const {
    const std::size_t n = dimensions(layer_.type);
    const bool transposed = layer_.type.starts_with("ConvTranspose");
    const auto each = [&](std::string_view name, int otherwise) {
      return each_of(keyword(layer_.keywords, name, otherwise), n);
    };
    const Ex groups = keyword(layer_.keywords, "groups", 1);
    const Ex w = weight("weight");
    const Ex b = weight("bias");
    if (keyword(layer_.keywords, "padding", 0)->kind == ExprKind::Str)
      return aten("conv" + std::to_string(n) + "d.padding",
                  {x, w, b, each("stride", 1), keyword(layer_.keywords, "padding"),
                   each("dilation", 1), groups});
    if (n == 2 && !transposed)
      return aten("conv2d", {x, w, b, each("stride", 1), each("padding", 0), each("dilation", 1),
                             groups});
    // What readers of traced models know for all other convolutions.
    return aten("_convolution",
                {x, w, b, each("stride", 1), each("padding", 0), each("dilation", 1), transposed,
                 each("output_padding", 0), groups, false, false, true, true});
  }

  /// Its forward starts from zeros; `resume` from states that it is given.
  void recurrent() {
    const bool is_lstm = layer_.type == "LSTM";
    for (const bool resumed : {false, true}) {
      forward_ = {};
      forward_.name = resumed ? "resume" : "forward";
      const Ex x = param("input", "Tensor");
      Ex h;
      Ex c;
      if (resumed && is_lstm) {
        const Ex given = param("hx", "Tuple[Tensor, Tensor]");
        const torch::VarPtr first = var("h", "Tensor");
        const torch::VarPtr second = var("c", "Tensor");
        set({first, second}, given);
        h = Ex(first);
        c = Ex(second);
      } else if (resumed) {
        h = param("hx", "Tensor");
      } else {
        const torch::VarPtr zeros = var("zeros", "Tensor");
        set({zeros}, initial_state(x));
        h = c = Ex(zeros);
      }
      run_layers(x, is_lstm ? list({h, c}) : h);
      out_->functions.push_back(std::move(forward_));
    }
  }

  std::int64_t layers() const { return keyword(layer_.keywords, "num_layers", 1)->integer; }
  bool is_on(std::string_view name, bool otherwise) const {
    return keyword(layer_.keywords, name, otherwise)->integer != 0;
  }
  std::int64_t directions() const { return is_on("bidirectional", false) ? 2 : 1; }

  Ex initial_state(const Ex& x) const {
    const std::int64_t batch_axis = is_on("batch_first", false) ? 0 : 1;
    return aten("zeros",
                {list({layers() * directions(), torch::size(x, batch_axis),
                       argument(1, "hidden_size")})},
                {{"dtype", op(".dtype", {x})}, {"device", op(".device", {x})}});
  }

  void run_layers(const Ex& x, const Ex& states) {
    const std::string& t = layer_.type;
    // The order in which ATen takes them: layer by layer, direction by direction.
    Args weights;
    for (std::int64_t l = 0; l < layers(); ++l)
      for (std::int64_t d = 0; d < directions(); ++d)
        for (const char* name : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}) {
          const Ex w =
              weight(std::string(name) + "_l" + std::to_string(l) + (d == 1 ? "_reverse" : ""));
          if (!w.is_none()) weights.push_back(w);
        }
    const bool relu = keyword(layer_.keywords, "nonlinearity", "tanh")->text == "relu";
    const std::string function = t == "LSTM"  ? "lstm.input"
                                 : t == "GRU" ? "gru.input"
                                 : relu       ? "rnn_relu.input"
                                              : "rnn_tanh.input";
    const Ex call = aten(function, {x, states, list(weights), is_on("bias", true), layers(), 0.0,
                                    false, is_on("bidirectional", false),
                                    is_on("batch_first", false)});
    const torch::VarPtr y = var("output", "Tensor");
    const torch::VarPtr h = var("h_n", "Tensor");
    if (t != "LSTM") {
      set({y, h}, call);
      return give(torch::tuple({Ex(y), Ex(h)}));
    }
    const torch::VarPtr c = var("c_n", "Tensor");
    set({y, h, c}, call);
    give(torch::tuple({Ex(y), torch::tuple({Ex(h), Ex(c)})}));
  }

  const torch::Module& layer_;
  int& next_var_;
  torch::InstancePtr out_;
  torch::Function forward_;
};

// ---------------------------------------------------------------- torch.nn.functional

/// The rank of a tensor where it is known.
std::optional<std::size_t> rank_of(const Expr& e) {
  if (e.kind == ExprKind::Var && e.var->has_dims) return e.var->dims.size();
  return std::nullopt;
}

ExprPtr interpolate(const Expr& e) {
  const torch::Kwargs keywords(e.keywords.begin(), e.keywords.end());
  const Ex x(e.args[0]);
  Ex size = keyword(keywords, "size");
  Ex scale = keyword(keywords, "scale_factor");
  const std::string mode = keyword(keywords, "mode", "nearest")->text;
  const Ex& extent = size.is_none() ? scale : size;
  std::size_t n = 0;
  if (extent->kind == ExprKind::List || extent->kind == ExprKind::Tuple) {
    n = extent->args.size();
  } else if (const auto rank = rank_of(*x); rank && *rank > 2) {
    n = *rank - 2;
  } else {
    return nullptr;
  }
  std::string function;
  bool aligns = true;
  if (mode == "nearest" || mode == "nearest-exact") {
    function = std::string(mode == "nearest" ? "" : "_") + "upsample_nearest" +
               (mode == "nearest" ? "" : "_exact") + std::to_string(n) + "d";
    aligns = false;
  } else {
    function = "upsample_" + mode + (mode == "linear" ? "1d" : mode == "trilinear" ? "3d" : "2d");
  }
  if (keyword(keywords, "antialias", false)->integer != 0) function = "_" + function + "_aa";
  Args args{x};
  if (size.is_none()) {
    if (scale->kind == ExprKind::Float || scale->kind == ExprKind::Int) scale = list(Args(n, scale));
    if (scale->kind == ExprKind::Tuple)
      scale = list(Args(scale->args.begin(), scale->args.end()));
    function += ".vec";
    args.push_back(kNone);
    if (aligns) args.push_back(keyword(keywords, "align_corners", false));
    args.push_back(scale);
  } else {
    args.push_back(each_of(size, n));
    if (aligns) args.push_back(keyword(keywords, "align_corners", false));
  }
  if (aligns && args.back().is_none()) args.back() = false;
  return aten(function, args).ptr();
}

/// One over the local sum of squares, as torch.nn.functional.local_response_norm computes it.
ExprPtr local_response_norm(const Expr& e) {
  const torch::Kwargs keywords(e.keywords.begin(), e.keywords.end());
  const Ex x(e.args[0]);
  const auto rank = rank_of(*x);
  const Ex size(e.args[1]);
  if (!rank || *rank < 3 || *rank > 4 || size->kind != ExprKind::Int) return nullptr;
  const std::int64_t n = size->integer;
  // The channels are the depth of a volume, or the height of an image, that a window passes over.
  const Ex squares = aten("unsqueeze", {aten("mul.Tensor", {x, x}), 1});
  const std::int64_t before = n / 2;
  const std::int64_t after = (n - 1) / 2;
  Ex mean;
  if (*rank == 3) {
    const Ex padded = aten("constant_pad_nd", {squares, list({0, 0, before, after})});
    mean = aten("avg_pool2d", {padded, list({n, 1}), list({1, 1})});
  } else {
    const Ex padded = aten("constant_pad_nd", {squares, list({0, 0, 0, 0, before, after})});
    mean = aten("avg_pool3d", {padded, list({n, 1, 1}), list({1, 1, 1})});
  }
  const Ex sum = aten("add.Scalar", {aten("mul.Scalar", {aten("squeeze.dim", {mean, 1}),
                                                         keyword(keywords, "alpha", 1e-4)}),
                                     keyword(keywords, "k", 1.0)});
  return aten("div.Tensor",
              {x, aten("pow.Tensor_Scalar", {sum, keyword(keywords, "beta", 0.75)})})
      .ptr();
}

std::int64_t mode_number(const std::string& mode, std::initializer_list<std::string_view> modes) {
  std::int64_t i = 0;
  for (const std::string_view m : modes) {
    if (m == mode) return i;
    ++i;
  }
  throw InternalError("a mode that torch does not have: " + mode);
}

}  // namespace

bool is_recurrent(std::string_view type) {
  return type == "LSTM" || type == "GRU" || type == "RNN";
}

torch::InstancePtr layer_instance(const torch::Module& layer,
                                  const std::map<std::string, torch::ParamPtr>& ties,
                                  int& next_var) {
  return Layer(layer, ties, next_var).run();
}

ExprPtr functional_as_aten(const Expr& e) {
  const torch::Kwargs kw(e.keywords.begin(), e.keywords.end());
  const auto arg = [&](std::size_t i, std::string_view name, Ex otherwise = {}) {
    return i < e.args.size() ? Ex(e.args[i]) : keyword(kw, name, std::move(otherwise));
  };
  const std::string& f = e.text;
  if (f == "F.interpolate") return interpolate(e);
  if (f == "F.local_response_norm") return local_response_norm(e);
  if (f == "F.batch_norm")
    return aten("batch_norm", {arg(0, "input"), arg(3, "weight"), arg(4, "bias"),
                               arg(1, "running_mean"), arg(2, "running_var"),
                               arg(5, "training", false), arg(6, "momentum", 0.1),
                               arg(7, "eps", 1e-5), true})
        .ptr();
  if (f == "F.instance_norm")
    return aten("instance_norm", {arg(0, "input"), arg(3, "weight"), arg(4, "bias"),
                                  arg(1, "running_mean"), arg(2, "running_var"),
                                  arg(5, "use_input_stats", true), arg(6, "momentum", 0.1),
                                  arg(7, "eps", 1e-5), true})
        .ptr();
  if (f == "F.layer_norm")
    return aten("layer_norm", {arg(0, "input"), each_of(arg(1, "normalized_shape"), 1),
                               arg(2, "weight"), arg(3, "bias"), arg(4, "eps", 1e-5)})
        .ptr();
  if (f == "F.grid_sample")
    return aten("grid_sampler",
                {arg(0, "input"), arg(1, "grid"),
                 mode_number(arg(2, "mode", "bilinear")->text, {"bilinear", "nearest", "bicubic"}),
                 mode_number(arg(3, "padding_mode", "zeros")->text,
                             {"zeros", "border", "reflection"}),
                 arg(4, "align_corners", false)})
        .ptr();
  if (f == "F.affine_grid")
    return aten("affine_grid_generator",
                {arg(0, "theta"), arg(1, "size"), arg(2, "align_corners", false)})
        .ptr();
  if (f == "torch.roll")
    return aten("roll", {arg(0, "input"), each_of(arg(1, "shifts"), 1), each_of(arg(2, "dims"), 1)})
        .ptr();
  if (f == "F.normalize") {
    const Ex x = arg(0, "input");
    const Ex norm = aten("norm.ScalarOpt_dim", {x, arg(1, "p", 2.0), each_of(arg(2, "dim", 1), 1),
                                                true});
    return aten("div.Tensor", {x, aten("clamp_min", {norm, arg(3, "eps", 1e-12)})}).ptr();
  }
  return nullptr;
}

}  // namespace onnx2nn::structure
