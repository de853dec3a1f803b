#include "diagnostics.h"

#include <exception>
#include <new>
#include <string>

#include "support/interrupt.h"

namespace onnx2nn {

void collect_errors(Diagnostics& diagnostics, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    diagnostics.add(e);
  } catch (const Cancelled&) {
    diagnostics.add(Error("cancelled", "interrupted"));
  } catch (const std::bad_alloc&) {
    diagnostics.add(Error("too-large", "not enough memory"));
  } catch (const std::exception& e) {
    diagnostics.add(Error("internal", std::string("internal error, please report it: ") + e.what()));
  }
}

std::vector<DiagnosticInfo> infos_of(const Diagnostics& diagnostics) {
  std::vector<DiagnosticInfo> out;
  for (const Diagnostic& d : diagnostics.list())
    out.push_back({std::string(severity_name(d.severity)), d.code, d.message, d.node, d.op_type, d.domain,
                   d.inputs, d.hint, d.opset});
  return out;
}

}  // namespace onnx2nn
