#include "cli/cli.h"
#include "support/arguments.h"

int main(int argc, char** argv) {
  const onnx2nn::Arguments arguments(argc, argv);
  return onnx2nn::cli::run(arguments.count(), arguments.data());
}
