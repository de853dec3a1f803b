// Converts and simplifies every model of a stream in-process and tells each that ends in a crash, a
// sanitizer's report, an internal error, or takes too long or too much: made for the sanitizer
// builds, in which a process for each model would cost more than the model.
//
//     convert_stream [--seconds N] [--megabytes N] [--sources N] [FILE...]
//
// Without files, the models come from standard input: of each, its size as four bytes, the lowest
// first, then its bytes. Answers are lines on standard output: "finding CASE KIND TEXT", "source
// CASE TEXT" for one in `--sources` models that convert, both with TEXT as a JSON string, and at
// last "done CASES CONVERTED SIMPLIFIED". The exit code is 1 where there was a finding.
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "onnx2nn/convert.h"
#include "onnx2nn/inspect.h"
#include "onnx2nn/simplify.h"
#include "support/text.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ONNX2NN_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ONNX2NN_ASAN 1
#endif

#ifdef ONNX2NN_ASAN
#include <sanitizer/allocator_interface.h>

extern "C" const char* __asan_default_options();
extern "C" const char* __ubsan_default_options();
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0:quarantine_size_mb=16:max_allocation_size_mb=2048";
}
extern "C" const char* __ubsan_default_options() {
  return "print_stacktrace=1";
}
#endif

namespace {

using onnx2nn::ConvertOptions;
using onnx2nn::SimplifyOptions;

struct Limits {
  unsigned seconds = 10;
  std::size_t megabytes = 768;
  std::size_t sources = 0;
};

struct Tally {
  std::size_t converted = 0;
  std::size_t simplified = 0;
  std::size_t findings = 0;
};

void say(std::string_view what, std::size_t number, std::string_view text) {
  std::printf("%.*s %zu %s\n", static_cast<int>(what.size()), what.data(), number,
              std::string(text).c_str());
}

// ---------------------------------------------------------------- one model

class Case {
 public:
  Case(std::size_t number, const std::string& bytes, const Limits& limits, Tally& tally)
      : number_(number), bytes_(bytes), limits_(limits), tally_(tally) {}

  void run() {
    convert(true);
    convert(false);
    simplify({});
    SimplifyOptions newer;
    newer.opset = 21;
    simplify(newer);
    const onnx2nn::Inspection found = onnx2nn::inspect_bytes(bytes_, {});
    check(found.diagnostics, found.readable);
  }

 private:
  void finding(const std::string& kind, const std::string& text) {
    ++tally_.findings;
    say("finding", number_, kind + " " + onnx2nn::json_quote(text));
  }

  void check(const std::vector<onnx2nn::DiagnosticInfo>& diagnostics, bool ok) {
    for (const auto& d : diagnostics)
      if (d.code == "internal") finding("internal", d.message);
    if (!ok && diagnostics.empty()) finding("silent", "failed without a diagnostic");
  }

  void convert(bool simplify) {
    ConvertOptions options;
    options.simplify = simplify;
    options.fuse = number_ % 2 == 0;
    options.allow_unknown = true;
    const onnx2nn::Conversion c = onnx2nn::convert_bytes(bytes_, options);
    check(c.diagnostics(), c.ok());
    if (!c.ok()) return;
    ++tally_.converted;
    for (const char byte : c.source())
      if (static_cast<unsigned char>(byte) < 0x20 && byte != '\n')
        return finding("source", "a control character in the source");
    if (limits_.sources != 0 && number_ % limits_.sources == 0)
      say("source", number_, onnx2nn::json_quote(c.source()));
  }

  void simplify(const SimplifyOptions& options) {
    const onnx2nn::Simplified s = onnx2nn::simplify_bytes(bytes_, "", options);
    check(s.diagnostics, s.ok);
    if (!s.ok) return;
    ++tally_.simplified;
    const onnx2nn::Simplified again = onnx2nn::simplify_bytes(s.model, "", {});
    check(again.diagnostics, again.ok);
    if (!again.ok) finding("rewritten", again.diagnostics_text);
  }

  std::size_t number_;
  const std::string& bytes_;
  const Limits& limits_;
  Tally& tally_;
};

// ---------------------------------------------------------------- many, in a process that may die

/// What the child is doing, and what it found: in memory that outlives it.
struct Shared {
  std::size_t at;
  Tally tally;
};

std::size_t limit_bytes = 0;

#ifdef ONNX2NN_ASAN
// Looked at whenever so much more was asked for: the sum is dear.
std::size_t until_look = 0;
constexpr std::size_t kLook = std::size_t{16} << 20;

void on_malloc(const volatile void*, std::size_t size) {
  if (size < until_look) {
    until_look -= size;
    return;
  }
  until_look = kLook;
  if (__sanitizer_get_current_allocated_bytes() > limit_bytes) {
    std::fprintf(stderr, "ERROR: more memory than allowed\n");
    std::abort();
  }
}
void on_free(const volatile void*) {}
#endif

[[noreturn]] void work(const std::vector<std::string>& models, std::size_t first,
                       std::size_t before, const Limits& limits, Shared& shared) {
#ifdef ONNX2NN_ASAN
  __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
#endif
  for (std::size_t i = first; i < models.size(); ++i) {
    shared.at = i;
    alarm(limits.seconds);
    Case(before + i, models[i], limits, shared.tally).run();
    std::fflush(stdout);
  }
  shared.at = models.size();
  _exit(0);
}

/// The lines of a report that say what happened, and where in our code.
std::string essence(const std::string& report, int status) {
  std::string out;
  const auto line_with = [&](std::string_view mark) {
    const auto found = report.find(mark);
    if (found == std::string::npos) return;
    const auto begin = report.rfind('\n', found) + 1;
    out += report.substr(begin, report.find('\n', found) - begin) + "\n";
  };
  line_with("runtime error:");
  line_with("ERROR:");
  line_with("Assertion");
  int frames = 0;
  for (std::size_t at = 0; at < report.size() && frames < 6;) {
    const auto end = std::min(report.find('\n', at), report.size());
    const std::string line = report.substr(at, end - at);
    at = end + 1;
    const auto in = line.find(" in ");
    if (line.find("    #") != 0 || in == std::string::npos ||
        line.find("/src/") == std::string::npos || line.find("/src/support/") != std::string::npos)
      continue;
    out += line.substr(in + 4) + "\n";
    ++frames;
  }
  if (WIFSIGNALED(status) && WTERMSIG(status) != SIGABRT)
    out = std::string(strsignal(WTERMSIG(status))) + "\n" + out;
  return out;
}

void run_batch(const std::vector<std::string>& models, std::size_t before, const Limits& limits,
               Tally& tally) {
  void* memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  auto& shared = *new (memory) Shared{};
  for (std::size_t first = 0; first < models.size(); first = shared.at + 1) {
    std::FILE* report = std::tmpfile();
    if (report == nullptr) std::abort();
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      dup2(fileno(report), STDERR_FILENO);
      work(models, first, before, limits, shared);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (shared.at < models.size()) {
      std::string text(1 << 16, '\0');
      std::rewind(report);
      text.resize(std::fread(text.data(), 1, text.size(), report));
      const bool slow = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
      const bool large = text.find("more memory than allowed") != std::string::npos ||
                         text.find("allocation-size-too-big") != std::string::npos ||
                         text.find("exceeds maximum supported size") != std::string::npos;
      ++shared.tally.findings;
      say("finding", before + shared.at,
          std::string(slow ? "slow " : large ? "large " : "crash ") +
              onnx2nn::json_quote(essence(text, status)));
    }
    std::fclose(report);
  }
  tally.converted += shared.tally.converted;
  tally.simplified += shared.tally.simplified;
  tally.findings += shared.tally.findings;
  munmap(memory, sizeof(Shared));
}

// ---------------------------------------------------------------- the stream

bool read_model(std::string& out) {
  unsigned char size[4];
  if (std::fread(size, 1, 4, stdin) != 4) return false;
  out.resize(size[0] | size[1] << 8 | size[2] << 16 | static_cast<std::uint32_t>(size[3]) << 24);
  return std::fread(out.data(), 1, out.size(), stdin) == out.size();
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::size_t kBatch = 256;
  Limits limits;
  std::vector<std::string> models;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto number = [&] { return std::strtoul(i + 1 < argc ? argv[++i] : "0", nullptr, 10); };
    if (argument == "--seconds") {
      limits.seconds = static_cast<unsigned>(number());
    } else if (argument == "--megabytes") {
      limits.megabytes = number();
    } else if (argument == "--sources") {
      limits.sources = number();
    } else {
      files.push_back(argument);
    }
  }
  limit_bytes = limits.megabytes << 20;
  onnx2nn::convert_bytes("", {});  // tables are built once, not in each child
  Tally tally;
  std::size_t done = 0;
  const auto flush = [&] {
    run_batch(models, done, limits, tally);
    done += models.size();
    models.clear();
  };
  for (const std::string& name : files) {
    std::ifstream file(name, std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "cannot read %s\n", name.c_str());
      return 2;
    }
    models.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (files.empty()) {
    for (std::string model; read_model(model);) {
      models.push_back(std::move(model));
      if (models.size() == kBatch) flush();
    }
  }
  flush();
  std::printf("done %zu %zu %zu\n", done, tally.converted, tally.simplified);
  return tally.findings == 0 ? 0 : 1;
}
