#include "emit/archive.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include <fmt/core.h>

#include "emit/crc32.h"
#include "emit/weight_stream.h"
#include "emit/weight_types.h"
#include "support/checked.h"

namespace onnx2nn::emit {
namespace {

constexpr std::uint64_t kLimit32 = 0xFFFFFFFF;

/// A stored (not compressed) member of a zip file.
struct ZipMember {
  std::string name;
  std::string text;  // the content where it is no weight
  std::uint64_t size = 0;
  std::uint64_t header = 0;  // offsets in the file
  std::uint64_t data = 0;
  std::uint32_t crc = 0;

  bool is_large() const { return size >= kLimit32; }
  std::uint64_t plain_header_size() const { return 30 + name.size() + (is_large() ? 20 : 0); }
};

/// What local and central headers have in common, from "version needed" to the sizes.
void append_member_fields(std::string& out, const ZipMember& member, bool zip64) {
  append_number(out, zip64 ? 45 : 20, 2);
  append_number(out, 0x800, 2);  // names are UTF-8
  append_number(out, 0, 2);      // stored
  append_number(out, 0, 2);      // time and date: the earliest that there is
  append_number(out, 0x21, 2);
  append_number(out, member.crc, 4);
  append_number(out, std::min(member.size, kLimit32), 4);
  append_number(out, std::min(member.size, kLimit32), 4);
  append_number(out, member.name.size(), 2);
}

std::string local_header(const ZipMember& member) {
  std::string out = "PK\x03\x04";
  append_member_fields(out, member, member.is_large());
  const std::uint64_t padding = member.data - member.header - member.plain_header_size();
  append_number(out, (member.is_large() ? 20 : 0) + padding, 2);
  out += member.name;
  if (member.is_large()) {
    append_number(out, 1, 2);
    append_number(out, 16, 2);
    append_number(out, member.size, 8);
    append_number(out, member.size, 8);
  }
  // torch fills the gap before aligned data with this field.
  out += "FB";
  append_number(out, padding - 4, 2);
  out.append(static_cast<std::size_t>(padding - 4), 'Z');
  return out;
}

std::string central_header(const ZipMember& member) {
  const bool far = member.header >= kLimit32;
  std::string extra;
  if (member.is_large()) {
    append_number(extra, member.size, 8);
    append_number(extra, member.size, 8);
  }
  if (far) append_number(extra, member.header, 8);
  std::string out = "PK\x01\x02";
  append_number(out, 45, 2);  // made by
  append_member_fields(out, member, !extra.empty());
  append_number(out, extra.empty() ? 0 : extra.size() + 4, 2);
  out.append(10, '\0');  // no comment, first disk, no attributes
  append_number(out, std::min(member.header, kLimit32), 4);
  out += member.name;
  if (!extra.empty()) {
    append_number(out, 1, 2);
    append_number(out, extra.size(), 2);
    out += extra;
  }
  return out;
}

/// The end of the archive: always with the zip64 records, as torch writes it.
std::string zip_end(std::uint64_t members, std::uint64_t directory, std::uint64_t directory_size) {
  std::string out = "PK\x06\x06";
  append_number(out, 44, 8);
  append_number(out, 45, 2);
  append_number(out, 45, 2);
  append_number(out, 0, 8);
  append_number(out, members, 8);
  append_number(out, members, 8);
  append_number(out, directory_size, 8);
  append_number(out, directory, 8);
  out += "PK\x06\x07";
  append_number(out, 0, 4);
  append_number(out, directory + directory_size, 8);
  append_number(out, 1, 4);
  out += "PK\x05\x06";
  append_number(out, 0, 4);
  append_number(out, std::min<std::uint64_t>(members, 0xFFFF), 2);
  append_number(out, std::min<std::uint64_t>(members, 0xFFFF), 2);
  append_number(out, std::min(directory_size, kLimit32), 4);
  append_number(out, std::min(directory, kLimit32), 4);
  append_number(out, 0, 2);
  return out;
}

}  // namespace

void add_archive(AtomicFileSet& files, const std::string& path, std::span<const ArchiveText> before,
                 std::span<const ArchiveWeight> weights, std::span<const ArchiveText> after) {
  // The first member's folder is where torch looks for the others.
  std::vector<ZipMember> members;
  const auto add_text = [&](const ArchiveText& text) {
    ZipMember member;
    member.name = fmt::format("archive/{}", text.name);
    member.size = text.text.size();
    member.crc = crc32(std::as_bytes(std::span(text.text)));
    member.text = text.text;
    members.push_back(std::move(member));
  };
  for (const ArchiveText& text : before) add_text(text);
  const std::size_t first_weight = members.size();
  std::vector<PlacedWeight> placed;
  for (const ArchiveWeight& weight : weights) {
    ZipMember member;
    member.name = fmt::format("archive/{}", weight.name);
    member.size = byte_size(*weight.entry);
    placed.push_back({weight.entry, 0, member.size});
    members.push_back(std::move(member));
  }
  for (const ArchiveText& text : after) add_text(text);

  constexpr std::uint64_t kAlignment = 64;
  std::uint64_t end = 0;
  for (ZipMember& member : members) {
    member.header = end;
    // Room for the four bytes of the padding field itself.
    member.data = round_up(end + member.plain_header_size() + 4, kAlignment);
    end = checked_add(member.data, member.size, "size of all weights");
  }
  AtomicFile& file = files.add(path);
  file.extend(end);
  for (std::size_t i = 0; i < placed.size(); ++i)
    placed[i].offset = members[first_weight + i].data;
  Checksums checksums;
  stream_weights(file, placed, &checksums);
  const std::vector<std::uint32_t> sums = checksums.of(file, placed);
  for (std::size_t i = 0; i < placed.size(); ++i) members[first_weight + i].crc = sums[i];

  for (const ZipMember& member : members) {
    const std::string header = local_header(member) + member.text;
    file.write_at(member.header, std::as_bytes(std::span(header)));
  }
  std::string directory;
  for (const ZipMember& member : members) directory += central_header(member);
  file.append(directory);
  file.append(zip_end(members.size(), end, directory.size()));
}

}  // namespace onnx2nn::emit
