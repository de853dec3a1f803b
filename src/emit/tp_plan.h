// `tp_plan()`, which says how a model is split over processes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace onnx2nn::emit {

struct TpPlan {
  std::vector<std::pair<std::string, std::string>> styles;  // patterns of modules, torch's classes
  std::vector<std::pair<std::string, std::string>> whole;   // patterns of others, why
  std::int64_t parts = 0;  // which the number of processes divides
};

/// The function; it needs `Any` of typing.
std::string tp_plan_source(const TpPlan& plan);

}  // namespace onnx2nn::emit
