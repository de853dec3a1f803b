#include "onnx/tensor_reader.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "onnx/file_kind.h"
#include "support/checked.h"
#include "support/text.h"

namespace onnx2nn::onnx {
namespace {

using ir::DType;
using wire::Reader;
using wire::WireType;

std::uint64_t parse_size(const std::string& text, const char* what) {
  std::uint64_t v = 0;
  const auto r = std::from_chars(text.data(), text.data() + text.size(), v);
  if (r.ec != std::errc() || r.ptr != text.data() + text.size())
    throw Error("external-data", std::string(what) + " is not a number");
  return v;
}

/// What was downloaded in place of a file, such as a web page, is too short as a rule.
Error too_short(const InputFile& file, const std::string& location, std::uint64_t need,
                std::uint64_t offset) {
  const std::string lacks = fmt::format("the tensor needs {} bytes at offset {}, the file has {}",
                                        need, offset, file.size());
  const auto kind = recognise(file);
  if (!kind || !kind->is_text) return {"external-data", lacks, "is the download complete?"};
  return {"external-data",
          "the external data " + printable(location) + " is " + kind->what + ": " + lacks,
          kind->advice};
}

}  // namespace

ByteSource TensorReader::slice(std::span<const std::byte> bytes) const {
  const auto offset = static_cast<std::uint64_t>(bytes.data() - file_->place().data());
  return ByteSource::of_file(file_, offset, bytes.size());
}

ByteSource TensorReader::external(const std::map<std::string, std::string>& entries,
                                  std::uint64_t need) {
  const auto get = [&](const char* key) {
    const auto it = entries.find(key);
    return it == entries.end() ? std::string() : it->second;
  };
  const std::uint64_t offset =
      get("offset").empty() ? 0 : parse_size(get("offset"), "external data offset");
  if (files_ != nullptr) return noted(get("location"), offset, need);
  const auto file = external_data_.open(get("location"));
  if (counted_.insert(file->path()).second) budget_.add_file(file->size());
  const std::uint64_t size = file->size();
  if (offset > size || need > size - offset)
    throw too_short(*file, get("location"), need, offset);
  if (!get("length").empty() && parse_size(get("length"), "external data length") != need)
    throw Error("external-data", "length " + get("length") + " differs from the " +
                                     std::to_string(need) +
                                     " bytes that the tensor's type and dimensions need");
  return ByteSource::of_file(file, offset, need);
}

ByteSource TensorReader::noted(const std::string& location, std::uint64_t offset,
                               std::uint64_t need) {
  ExternalFile& file = (*files_)[location];
  ++file.tensors;
  file.bytes = checked_add(file.bytes, need, "external data");
  file.least = std::max(file.least, checked_add(offset, need, "external data"));
  try {
    const auto found = external_data_.open(location);
    if (counted_.insert(found->path()).second) budget_.add_file(found->size());
    file.size = found->size();
    if (offset > found->size() || need > found->size() - offset)
      throw too_short(*found, location, need, offset);
    return ByteSource::of_file(found, offset, need);
  } catch (const Error& e) {
    if (e.code() == "bad-option") throw;
    if (file.why.empty()) file.why = e.message();
    auto& missing = missing_[location];
    if (!missing) missing = InputFile::missing(location, e.message());
    return ByteSource::missing(missing, offset, need);
  }
}

/// Elements of six bits, a number each, as raw_data has them: four in three bytes.
static std::vector<std::int64_t> pack_sixes(const std::vector<std::int64_t>& elements) {
  std::vector<std::int64_t> bytes((elements.size() * 6 + 7) / 8);
  for (std::size_t i = 0; i < elements.size(); ++i) {
    const std::uint64_t bits = (static_cast<std::uint64_t>(elements[i]) & 0x3FU) << (i * 6 % 8);
    bytes[i * 6 / 8] |= static_cast<std::int64_t>(bits & 0xFFU);
    if (bits > 0xFFU) bytes[i * 6 / 8 + 1] |= static_cast<std::int64_t>(bits >> 8U);
  }
  return bytes;
}

TensorReader::Named TensorReader::read(Reader m) {
  Named out;
  std::vector<std::int64_t> dims;
  std::int32_t data_type = 0;
  bool is_external = false;
  std::map<std::string, std::string> entries;
  std::optional<std::span<const std::byte>> raw;
  std::optional<std::span<const std::byte>>
      packed;  // one packed chunk of floats or doubles, used in place
  bool in_pieces = false;
  std::vector<std::byte> pieces;      // floats and doubles that came in several pieces
  std::vector<std::int64_t> numbers;  // int32_data, int64_data, uint64_data
  bool has_numbers = false;
  std::vector<std::string> strings;
  const auto add_fixed = [&](auto v) {
    const auto* p = reinterpret_cast<const std::byte*>(&v);
    pieces.insert(pieces.end(), p, p + sizeof v);
  };
  const auto fixed_field = [&](Reader& r, auto zero) {
    using T = decltype(zero);
    if (r.type() == WireType::Length && !packed && !in_pieces) {
      packed = r.bytes();
      if (packed->size() % sizeof(T) != 0) r.fail("packed numbers end in the middle of one");
      return;
    }
    if (packed) {
      pieces.assign(packed->begin(), packed->end());
      packed.reset();
    }
    in_pieces = true;
    r.fixeds<T>(add_fixed);
  };
  while (m.next()) {
    switch (m.field()) {
      case 1:
        m.int64s([&](std::int64_t d) { dims.push_back(d); });
        break;
      case 2:
        data_type = m.int32();
        break;
      case 3:
        m.fail("segmented tensors are not supported");
      case 4:
        fixed_field(m, float{});
        break;
      case 5:
      case 7:
      case 11:
        has_numbers = true;
        m.int64s([&](std::int64_t v) { numbers.push_back(v); });
        break;
      case 6:
        strings.push_back(m.string());
        break;
      case 8:
        out.name = m.string();
        break;
      case 9:
        raw = m.bytes();
        break;
      case 10:
        fixed_field(m, double{});
        break;
      case 13: {
        Reader e = m.message("StringStringEntryProto");
        std::string key;
        std::string value;
        while (e.next()) {
          if (e.field() == 1) {
            key = e.string();
          } else if (e.field() == 2) {
            value = e.string();
          } else {
            e.skip();
          }
        }
        entries[key] = value;
        break;
      }
      case 14:
        is_external = m.int32() == 1;
        break;
      default:
        m.skip();
    }
  }
  const auto fail = [&](const Error& e) {
    return Error(e.code(), "tensor \"" + out.name + "\": " + e.what(), e.hint());
  };
  if (data_type <= 0 || data_type >= ir::kDTypeCount)
    throw Error("unsupported-dtype", "tensor \"" + out.name + "\" has the unknown element type " +
                                         std::to_string(data_type));
  const auto dtype = static_cast<DType>(data_type);
  try {
    const std::int64_t count = element_count(dims);
    std::uint64_t copied = pieces.size() + 2 * sizeof(std::int64_t) * numbers.size() +
                           sizeof(std::string) * strings.size();
    for (const std::string& s : strings) copied += s.size();
    budget_.charge(Resource::Bytes, copied, "the tensor " + out.name);
    if (dtype == DType::String) {
      out.tensor = std::make_shared<const ir::Tensor>(std::move(dims), std::move(strings));
      return out;
    }
    const std::uint64_t need = ir::packed_size(dtype, count);
    if (is_external) {
      out.tensor =
          std::make_shared<const ir::Tensor>(dtype, std::move(dims), external(entries, need));
    } else if (raw) {
      out.tensor = std::make_shared<const ir::Tensor>(dtype, std::move(dims), slice(*raw));
    } else if (packed) {
      out.tensor = std::make_shared<const ir::Tensor>(dtype, std::move(dims), slice(*packed));
    } else if (in_pieces) {
      out.tensor = ir::Tensor::owned(dtype, std::move(dims), std::move(pieces));
    } else if (has_numbers || need > 0) {
      // int32_data holds one element a number, except that types of two and four bits are packed
      // as in raw_data.
      std::vector<std::byte> bytes;
      const auto bits = static_cast<unsigned>(ir::info(dtype).bits);
      if (bits == 6 && numbers.size() == static_cast<std::size_t>(element_count(dims)))
        numbers = pack_sixes(numbers);
      const std::size_t width =
          bits < 8 ? 1 : (ir::info(dtype).kind == 'c' || bits > 64 ? 0 : bits / 8);
      if (width == 0 || numbers.size() * width != need)
        throw Error("bad-model", "has " + std::to_string(numbers.size()) + " numbers where " +
                                     std::to_string(need) + " bytes are needed");
      bytes.resize(need);
      for (std::size_t i = 0; i < numbers.size(); ++i)
        std::memcpy(bytes.data() + i * width, &numbers[i], width);
      out.tensor = ir::Tensor::owned(dtype, std::move(dims), std::move(bytes));
    } else {
      out.tensor = ir::Tensor::owned(dtype, std::move(dims), {});
    }
  } catch (const Error& e) {
    throw fail(e);
  }
  return out;
}

TensorReader::Named TensorReader::read_sparse(Reader m) {
  Named values;
  Named indices;
  std::vector<std::int64_t> dims;
  while (m.next()) {
    switch (m.field()) {
      case 1:
        values = read(m.message("TensorProto"));
        break;
      case 2:
        indices = read(m.message("TensorProto"));
        break;
      case 3:
        m.int64s([&](std::int64_t d) { dims.push_back(d); });
        break;
      default:
        m.skip();
    }
  }
  if (!values.tensor || !indices.tensor)
    throw Error("bad-model", "a sparse tensor lacks its values or indices");
  const ir::Tensor& v = *values.tensor;
  const ir::Tensor& at = *indices.tensor;
  const std::int64_t count = element_count(dims);
  if (v.dtype() == DType::String || ir::is_sub_byte(v.dtype()))
    throw Error("unsupported-dtype", "sparse tensor of " + std::string(ir::info(v.dtype()).name));
  const std::uint64_t size = ir::packed_size(v.dtype(), count);
  budget_.charge(Resource::Bytes, size, "the sparse tensor " + values.name);
  const auto width = static_cast<std::size_t>(ir::info(v.dtype()).bits) / 8;
  const bool coordinates = at.rank() == 2;
  if (coordinates &&
      (at.dims()[0] != v.size() || at.dims()[1] != static_cast<std::int64_t>(dims.size())))
    throw Error("bad-model", "a sparse tensor's indices do not fit its values");
  if (!coordinates && at.size() != v.size())
    throw Error("bad-model", "a sparse tensor's indices do not fit its values");
  std::vector<std::byte> bytes(size);
  for (std::int64_t i = 0; i < v.size(); ++i) {
    std::int64_t flat = 0;
    if (coordinates) {
      for (std::size_t d = 0; d < dims.size(); ++d) {
        const std::int64_t k =
            at.int_at(i * static_cast<std::int64_t>(dims.size()) + static_cast<std::int64_t>(d));
        if (k < 0 || k >= dims[d])
          throw Error("bad-model", "a sparse tensor's index is out of range");
        flat = flat * dims[d] + k;
      }
    } else {
      flat = at.int_at(i);
      if (flat < 0 || flat >= count)
        throw Error("bad-model", "a sparse tensor's index is out of range");
    }
    std::memcpy(bytes.data() + static_cast<std::size_t>(flat) * width,
                v.bytes().data() + static_cast<std::size_t>(i) * width, width);
  }
  return {values.name, ir::Tensor::owned(v.dtype(), std::move(dims), std::move(bytes))};
}

}  // namespace onnx2nn::onnx
