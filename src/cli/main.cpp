#include "cli/cli.h"

int main(int argc, char** argv) {
  return onnx2nn::cli::run(argc, argv);
}
