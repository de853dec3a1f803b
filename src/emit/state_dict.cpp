#include <optional>

#include <fmt/core.h>

#include "emit/archive.h"
#include "emit/weight_types.h"
#include "emit/weights.h"

namespace onnx2nn::emit {
namespace {

/// Writes one tensor; `record` is the number of the storage that holds it.
void pickle_tensor(Pickle& out, const WeightEntry& entry, std::size_t record) {
  const DTypeRow& dtype = row_of(entry.dtype);
  const bool typed = dtype.typed;
  const std::uint64_t size = byte_size(entry);
  out.global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  out.op('(');
  out.op('(');
  out.text("storage");
  if (typed) {
    out.global("torch", dtype.storage);
  } else {
    out.global("torch.storage", "UntypedStorage");
  }
  out.text(std::to_string(record));
  out.text("cpu");
  out.integer(typed ? size / dtype.size : size);
  out.op('t');
  out.op('Q');
  out.integer(0);
  pickle_layout(out, entry.shape);
  out.op('\x89');  // requires_grad is False
  out.ordered_dict();
  if (!typed) out.global("torch", dtype.torch_name);
  out.op('t');
  out.op('R');
}

}  // namespace

void add_state_dict_pth(AtomicFileSet& files, const std::string& path,
                        std::span<const WeightEntry> entries, std::string_view origin) {
  const auto targets = check_entries(entries);

  // Storages are numbered by the entries that own one; names must differ by more than case.
  std::vector<std::size_t> record(entries.size());
  std::size_t records = 0;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (!targets[i]) record[i] = records++;
  }
  for (std::size_t i = 0; i < entries.size(); ++i) {
    if (targets[i]) record[i] = record[*targets[i]];
  }

  Pickle pickle;
  pickle.ordered_dict();
  if (!entries.empty()) {
    pickle.op('(');
    for (std::size_t i = 0; i < entries.size(); ++i) {
      pickle.text(entries[i].key);
      pickle_tensor(pickle, entries[i], record[i]);
    }
    pickle.op('u');
  }

  std::vector<ArchiveText> before;
  if (!origin.empty()) before.push_back({"onnx2nn", std::string(origin)});
  before.push_back({"data.pkl", pickle.finish()});
  before.push_back({"byteorder", "little"});
  std::vector<ArchiveWeight> weights;
  for (std::size_t i = 0; i < entries.size(); ++i)
    if (!targets[i]) weights.push_back({fmt::format("data/{}", record[i]), &entries[i]});
  const std::vector<ArchiveText> after{{"version", "3\n"}};
  add_archive(files, path, before, weights, after);
}

std::vector<std::string> write_state_dict_pth(const std::string& path,
                                              std::span<const WeightEntry> entries) {
  AtomicFileSet files;
  add_state_dict_pth(files, path, entries);
  files.commit();
  return files.paths();
}

}  // namespace onnx2nn::emit
