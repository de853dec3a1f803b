// The native program where the shared library lies beside it, as in the Python package.
#include "onnx2nn/onnx2nn.h"

int main(int argc, char** argv) { return onnx2nn_run(argc, argv); }
