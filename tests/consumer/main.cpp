// A user of the installed library: a model that converts, and bytes that are none.

#include <onnx2nn/convert.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const onnx2nn::Conversion digits = onnx2nn::convert_file(argv[1], {});
  std::cout << digits.diagnostics_text();
  if (!digits.ok() || digits.stats().op_types.at("Conv") != 5) return 1;
  if (digits.source().find("nn.Conv2d(") == std::string::npos) return 1;
  const onnx2nn::Conversion garbage = onnx2nn::convert_bytes("not a model", {});
  std::cout << garbage.diagnostics_text();
  return garbage.ok() || garbage.readable() || garbage.diagnostics().empty() ? 1 : 0;
}
