// A user of libtorch: loads a .pt file, runs it on the floats of a file and writes those of its answer.
//
//     run MODEL.pt INPUT.bin OUTPUT.bin DIM...
#include <torch/script.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <vector>

int main(int argc, char** argv) try {
  if (argc < 5) return 2;
  std::vector<std::int64_t> dims;
  for (int i = 4; i < argc; ++i) dims.push_back(std::atoll(argv[i]));
  torch::Tensor x = torch::empty(dims);
  std::ifstream in(argv[2], std::ios::binary);
  in.read(static_cast<char*>(x.data_ptr()), static_cast<std::streamsize>(x.nbytes()));
  if (!in) return 2;

  torch::jit::script::Module module = torch::jit::load(argv[1]);
  module.eval();
  const torch::InferenceMode guard;
  const torch::Tensor y = module.forward({x}).toTensor().contiguous();
  std::ofstream out(argv[3], std::ios::binary);
  out.write(static_cast<const char*>(y.data_ptr()), static_cast<std::streamsize>(y.nbytes()));
  std::cout << y.sizes() << "\n";
  return out.flush() ? 0 : 1;
} catch (const std::exception& e) {
  std::cerr << e.what() << "\n";
  return 1;
}
