#include <optional>

#include <fmt/core.h>

#include "emit/archive.h"
#include "emit/pickle_weight.h"
#include "emit/weight_types.h"
#include "emit/weights.h"

namespace onnx2nn::emit {

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
      pickle_weight(pickle, entries[i], false, StorageForm::AsSaved, [&, i] {
        pickle_storage(pickle, entries[i], record[i], StorageForm::AsSaved);
      });
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
