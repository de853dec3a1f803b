// The native program where the shared library lies beside it, as in the Python package.
#include "onnx2nn/onnx2nn.h"
#include "support/arguments.h"

int main(int argc, char** argv) {
  const onnx2nn::Arguments arguments(argc, argv);
  return onnx2nn_run(arguments.count(), arguments.data());
}
