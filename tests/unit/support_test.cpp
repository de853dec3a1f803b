#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <random>
#include <nlohmann/json.hpp>

#include "support/atomic_file.h"
#include "support/checked.h"
#include "support/error.h"
#include "support/hash.h"
#include "support/input_file.h"
#include "support/number.h"
#include "support/text.h"

namespace onnx2nn {
namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "onnx2nn-test-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

template <typename Call>
std::string code_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return "no error";
}

TEST(Checked, OverflowIsAnError) {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  EXPECT_EQ(checked_add<std::int64_t>(kMax - 1, 1), kMax);
  EXPECT_EQ(code_of([] { checked_add<std::int64_t>(kMax, 1); }), "too-large");
  EXPECT_EQ(code_of([] { checked_sub<std::uint64_t>(1, 2); }), "too-large");
  EXPECT_EQ(code_of([] { checked_mul<std::int64_t>(kMax / 2, 3); }), "too-large");
  EXPECT_EQ(narrow<std::uint8_t>(255), 255);
  EXPECT_EQ(code_of([] { narrow<std::uint8_t>(256); }), "too-large");
  EXPECT_EQ(code_of([] { narrow<std::uint32_t>(std::int64_t{-1}); }), "too-large");
}

TEST(Checked, FloatsBecomeIntegersWhereTheyFit) {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  constexpr auto kMin = std::numeric_limits<std::int64_t>::min();
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  constexpr double kInf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(to_integer<std::int64_t>(-2.9), -2);
  EXPECT_EQ(to_integer<std::int64_t>(-0x1p63), kMin);
  EXPECT_FALSE(to_integer<std::int64_t>(0x1p63));
  EXPECT_FALSE(to_integer<std::int64_t>(kNan));
  EXPECT_EQ(to_integer<std::uint8_t>(255.5F), 255);
  EXPECT_FALSE(to_integer<std::uint8_t>(256.0F));
  EXPECT_FALSE(to_integer<std::uint8_t>(-1.0F));
  EXPECT_EQ(to_integer<std::uint8_t>(-0.5F), 0);
  EXPECT_EQ(saturated<std::int64_t>(kInf), kMax);
  EXPECT_EQ(saturated<std::int64_t>(-1e300), kMin);
  EXPECT_EQ(saturated<std::int64_t>(kNan), 0);
}

TEST(Checked, ElementCount) {
  const auto count = [](std::vector<std::int64_t> dims) { return element_count(dims); };
  EXPECT_EQ(count({}), 1);
  EXPECT_EQ(count({2, 3, 4}), 24);
  EXPECT_EQ(count({1LL << 40, 0, 1LL << 40}), 0);
  EXPECT_EQ(code_of([&] { count({1LL << 40, 1LL << 40}); }), "too-large");
  EXPECT_EQ(code_of([&] { count({0, -1}); }), "bad-model");
}

TEST(Check, NamesThePlaceButNoFolder) {
  try {
    ONNX2NN_CHECK(1 == 2, "numbers are broken");
    FAIL();
  } catch (const InternalError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("support_test.cpp:"), std::string::npos) << what;
    EXPECT_NE(what.find("numbers are broken"), std::string::npos) << what;
    EXPECT_EQ(what.find('/'), std::string::npos) << what;
  }
}

Diagnostic resize_diagnostic() {
  Diagnostic d;
  d.code = "unsupported-attribute";
  d.message = "Resize: no such mode";
  d.node = "/up1/Resize";
  d.op_type = "Resize";
  d.opset = 18;
  d.inputs = "x  f32[N, 64]\nsizes  i64[4]";
  d.hint = "export again";
  return d;
}

TEST(Diagnostics, Text) {
  Diagnostics all;
  all.add(resize_diagnostic());
  all.add(Severity::Note, "unchecked", "not compared");
  EXPECT_EQ(all.text("m.onnx"),
            "m.onnx: error[unsupported-attribute]: Resize: no such mode\n"
            "  node    /up1/Resize   (ai.onnx::Resize, opset 18)\n"
            "  inputs  x  f32[N, 64]\n"
            "          sizes  i64[4]\n"
            "  hint    export again\n"
            "m.onnx: note[unchecked]: not compared\n");
  EXPECT_EQ(all.summary(), "1 error in 1 op type");
  EXPECT_EQ(all.summary(414), "1 error in 1 op type; 413 of 414 nodes are convertible");
  EXPECT_TRUE(all.has_errors());
  EXPECT_EQ(all.count(Severity::Note), 1U);
}

TEST(Diagnostics, WhatIsWrongWithManyNodesIsSaidOnce) {
  Diagnostics all;
  for (int k = 0; k < 7; ++k) {
    Diagnostic d = resize_diagnostic();
    d.node = "n" + std::to_string(k);
    all.add(d);
  }
  EXPECT_EQ(all.text("m.onnx"),
            "m.onnx: error[unsupported-attribute]: Resize: no such mode\n"
            "  node    n0   (ai.onnx::Resize, opset 18)\n"
            "          n1\n"
            "          n2\n"
            "          n3\n"
            "          n4\n"
            "          and 2 more\n"
            "  hint    export again\n");
}

TEST(Diagnostics, ModelTextStaysOnItsLine) {
  Diagnostic d = resize_diagnostic();
  d.node = "a\nb\x1b[2J\xff\xe2\x80\xae";
  d.op_type = "Re\rsize";
  Diagnostics all;
  all.add(d);
  const std::string text = all.text("");
  EXPECT_NE(text.find(R"(a\nb\x1b[2J\xff\u202e)"), std::string::npos) << text;
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
}

TEST(Diagnostics, Json) {
  Diagnostic d = resize_diagnostic();
  d.node = "bad \xff \"name\"";
  Diagnostics all;
  all.add(d);
  const auto json = nlohmann::json::parse(all.json());
  ASSERT_EQ(json.size(), 1U);
  EXPECT_EQ(json[0]["severity"], "error");
  EXPECT_EQ(json[0]["opset"], 18);
  EXPECT_EQ(json[0]["node"], "bad \\xff \"name\"");
}

template <typename T>
std::string to_chars_text(T v) {
  char buffer[64];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, v).ptr};
}

TEST(Number, ShortestIsThatOfToChars) {
  const auto same = [](auto v) {
    if (!std::isfinite(v)) return;
    EXPECT_EQ(shortest(v), to_chars_text(v));
    EXPECT_EQ(real_number(shortest(static_cast<double>(v))), static_cast<double>(v));
  };
  for (const double v : {0.0, -0.0, 1.0, -1e5, 1e6, 1e-4, 1e-3, 5e-324, 1.7976931348623157e308, 1e21, 1e22}) {
    same(v);
    same(static_cast<float>(v));
  }
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t bits = random();
    same(std::bit_cast<double>(bits));
    same(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    same(static_cast<double>((bits >> 33U) % 100000) * std::pow(10.0, static_cast<int>(bits % 60) - 20));
    same(static_cast<float>((bits >> 33U) % 100000) * std::pow(10.0F, static_cast<float>(bits % 24) - 10));
  }
}

TEST(Number, WholeTextsOnly) {
  EXPECT_EQ(real_number("-1.5e3"), -1500.0);
  for (const char* text : {"", " 1", "1 ", "+1", "1x", "0x1p3"}) EXPECT_EQ(real_number(text), std::nullopt);
}

TEST(Text, Utf8) {
  EXPECT_TRUE(is_utf8("plain \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80"));
  for (const char* bad : {"\x80", "\xC0\x80", "\xC3", "\xE0\x80\x80", "\xED\xA0\x80",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xE2\x82"})
    EXPECT_FALSE(is_utf8(bad));
  EXPECT_EQ(to_utf8("a\xC3z\xE2\x82"), R"(a\xc3z\xe2\x82)");
}

TEST(Text, PythonLiterals) {
  EXPECT_EQ(python_quote("plain"), "\"plain\"");
  EXPECT_EQ(python_quote("it's"), "\"it's\"");
  EXPECT_EQ(python_quote("say \"x\""), "'say \"x\"'");
  EXPECT_EQ(python_quote("\"'"), "\"\\\"'\"");
  EXPECT_EQ(python_quote("x\"); import os#"), "'x\"); import os#'");
  EXPECT_EQ(python_quote("'''\"\"\"\\\n"), R"("'''\"\"\"\\\n")");
  EXPECT_EQ(python_quote(std::string_view("\0\x7f\r\t", 4)), R"("\x00\x7f\r\t")");
  EXPECT_EQ(python_quote("\xC3\xA9\xE6\x9D\x83"), "\"\xC3\xA9\xE6\x9D\x83\"");
  EXPECT_EQ(python_quote("\xE2\x80\xAE\xF0\x9F\x98\x80\xff"), R"("\u202e\U0001f600\udcff")");
  EXPECT_EQ(python_bytes("a\"\xff\n"), R"(b'a"\xff\n')");
  EXPECT_EQ(display_width("a\xE6\x9D\x83"), 3U);
}

TEST(Text, JsonLiterals) {
  const std::string text = "q\" b\\ \n \x01 \xC3\xA9 \xF0\x9F\x98\x80";
  EXPECT_EQ(nlohmann::json::parse(json_quote(text)).get<std::string>(), text);
  EXPECT_EQ(json_quote("\xff"), R"("\\xff")");
  EXPECT_EQ(json_quote_path("a\xff\xc3\xa9"), R"("a\udcff\u00e9")");
  EXPECT_EQ(replace_invalid("a\xff\xc3\xa9"), "a\xef\xbf\xbd\xc3\xa9");
}

TEST(Text, SplitJoinStrip) {
  EXPECT_EQ(split("", ','), std::vector<std::string_view>{""});
  EXPECT_EQ(split("a,,b,", ','), (std::vector<std::string_view>{"a", "", "b", ""}));
  EXPECT_EQ(join(std::vector<std::string>{"a", "b"}, ", "), "a, b");
  EXPECT_EQ(strip(" \ta b\n"), "a b");
  EXPECT_EQ(strip(" \n"), "");
  EXPECT_EQ(to_lower("Conv2D"), "conv2d");
}

TEST(Hash, Sha256) {
  EXPECT_EQ(sha256_hex(bytes_of("")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(bytes_of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string text(1000, 'a');
  Sha256 parts;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = std::min<std::size_t>(at % 67 + 1, text.size() - at);
    parts.update(bytes_of(text).subspan(at, n));
    at += n;
  }
  const auto digest = parts.digest();
  EXPECT_EQ(digest[0], 0x41);
  EXPECT_EQ(digest[31], 0xa3);
}

TEST(Hash, Hash128TellsThingsApart) {
  std::vector<Hash128> seen;
  for (std::size_t n = 0; n < 200; ++n) seen.push_back(hash128(bytes_of(std::string(n, '\0'))));
  for (std::size_t bit = 0; bit < 8 * 100; ++bit) {
    std::string text(100, '\0');
    text[bit / 8] = static_cast<char>(1 << (bit % 8));
    seen.push_back(hash128(bytes_of(text)));
  }
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
  EXPECT_EQ(hash128(bytes_of("x"), 1), hash128(bytes_of("x"), 1));
  EXPECT_NE(hash128(bytes_of("x"), 1), hash128(bytes_of("x"), 2));
}

TEST(InputFile, Reads) {
  const Folder folder;
  put(folder / "f", "0123456789");
  for (const auto& file : {InputFile::open(folder / "f"), InputFile::from_memory("0123456789")}) {
    ASSERT_EQ(file->size(), 10U);
    EXPECT_EQ(static_cast<char>(file->bytes()[3]), '3');
    std::string part(4, ' ');
    file->read(6, std::as_writable_bytes(std::span(part)));
    EXPECT_EQ(part, "6789");
    EXPECT_EQ(code_of([&] { file->read(7, std::as_writable_bytes(std::span(part))); }), "io");
    EXPECT_EQ(code_of([&] { file->read(~0ULL, std::as_writable_bytes(std::span(part))); }), "io");
    std::string rows(9, '.');
    file->read_rows(1, std::as_writable_bytes(std::span(rows).first(8)), 2, 3);
    EXPECT_EQ(rows, "12.34.56.");
    file->prefetch(0, file->size());
    const ByteSource source = ByteSource::of_file(file, 2, 3);
    EXPECT_EQ(source.size(), 3U);
    EXPECT_EQ(source.file_offset(), 2U);
    EXPECT_EQ(static_cast<char>(source.bytes()[2]), '4');
    EXPECT_EQ(code_of([&] { ByteSource::of_file(file, 2, 9); }), "bad-model");
    EXPECT_EQ(code_of([&] { ByteSource::of_file(file, ~0ULL, 2); }), "bad-model");
  }
}

TEST(InputFile, OddFiles) {
  const Folder folder;
  put(folder / "empty", "");
  EXPECT_EQ(InputFile::open(folder / "empty")->size(), 0U);
  EXPECT_EQ(code_of([&] { InputFile::open(folder / "absent"); }), "io");
  EXPECT_EQ(code_of([&] { InputFile::open(folder / "."); }), "io");
  EXPECT_EQ(code_of([&] { InputFile::open("/dev/null"); }), "io");
  ASSERT_EQ(::mkfifo((folder / "fifo").c_str(), 0600), 0);
  EXPECT_EQ(code_of([&] { InputFile::open(folder / "fifo"); }), "io");
}

TEST(InputFile, ShrunkWhileOpen) {
  const Folder folder;
  for (const std::size_t size : {std::size_t{10000}, std::size_t{3} << 20}) {
    put(folder / "f", std::string(size, 'x'));
    const auto file = InputFile::open(folder / "f");
    const ByteSource end = ByteSource::of_file(file, size - 200, 200);
    file->check_unchanged();
    fs::resize_file(folder / "f", size - 100);
    std::string part(200, ' ');
    EXPECT_EQ(code_of([&] { end.read(0, std::as_writable_bytes(std::span(part))); }), "io");
    EXPECT_EQ(code_of([&] { end.bytes(); }), "io");
    EXPECT_EQ(code_of([&] { end.bytes(150, 10); }), "io");
    EXPECT_EQ(code_of([&] { file->check_unchanged(); }), "io");
    AtomicFile out(folder / "out");
    EXPECT_EQ(code_of([&] { out.append(ByteSource::of_file(file, 0, size)); }), "io");
  }
}

TEST(InputFile, IsReadWhereItIsLookedAt) {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 3 << 20; ++i) text += static_cast<char>(i * 31 + i / 1000);
  put(folder / "f", text);
  const auto file = InputFile::open(folder / "f");
  for (const auto& [offset, length] : {std::pair<std::size_t, std::size_t>{16383, 2},
                                       {0, 1},
                                       {100000, 40000},
                                       {90000, 100000},
                                       {text.size() - 1, 1},
                                       {0, 0},
                                       {0, text.size()}}) {
    const auto bytes = file->bytes(offset, length);
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), bytes_of(text).begin() + offset)) << offset;
  }
}

TEST(InputFile, MoreThanMayBeOpen) {
  constexpr std::size_t kCount = 200;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{100, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  const Folder folder;
  std::vector<std::shared_ptr<const InputFile>> files;
  for (std::size_t i = 0; i < kCount; ++i) {
    put(folder / "f", std::to_string(i));
    fs::rename(folder / "f", folder / std::to_string(i));
    files.push_back(InputFile::open(folder / std::to_string(i)));
  }
  put(folder / "7", "another");
  for (std::size_t i = 0; i < kCount; ++i) {
    const auto is_right = [&] {
      const auto bytes = files[i]->bytes();
      const auto wanted = bytes_of(std::to_string(i));
      return std::equal(bytes.begin(), bytes.end(), wanted.begin(), wanted.end());
    };
    if (i == 7) {
      EXPECT_EQ(code_of(is_right), "io");
    } else {
      EXPECT_TRUE(is_right()) << i;
    }
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(InputFile, NoLinkBelowARoot) {
  const Folder folder;
  fs::create_directory(folder / "in");
  put(folder / "in/f", "x");
  fs::create_symlink(folder / "in", folder / "link");
  fs::create_symlink(folder / "in/f", folder / "in/link");
  const std::string root = fs::canonical(folder / ".").string();
  EXPECT_EQ(InputFile::open_below(root, "in/f")->path(), root + "/in/f");
  EXPECT_EQ(code_of([&] { InputFile::open_below(root, "link/f"); }), "io");
  EXPECT_EQ(code_of([&] { InputFile::open_below(root, "in/link"); }), "io");
}

TEST(AtomicFile, AppearsOnCommit) {
  const Folder folder;
  put(folder / "out", "old");
  {
    AtomicFile file(folder / "out");
    file.append("new");
    EXPECT_EQ(file.position(), 3U);
    EXPECT_EQ(contents(folder / "out"), "old");
  }
  EXPECT_EQ(contents(folder / "out"), "old");
  EXPECT_EQ(folder.files(), 1U);
  AtomicFileSet files;
  files.add(folder / "out").append("new");
  files.commit();
  EXPECT_EQ(contents(folder / "out"), "new");
  EXPECT_EQ(folder.files(), 1U);
}

TEST(AtomicFile, AllWaysOfWriting) {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 300000; ++i) text += static_cast<char>(i * 7 + i / 256);
  put(folder / "in", text);
  const auto mapped = InputFile::open(folder / "in");
  const auto memory = InputFile::from_memory(text);
  std::string expected;
  AtomicFileSet files;
  AtomicFile& file = files.add(folder / "out");
  for (const std::size_t size : {1UL, 1000UL, 70000UL, 290000UL}) {
    file.append(std::string_view(text).substr(0, size));
    file.append_range(*mapped, 5, size);
    file.append_range(*memory, 6, size);
    file.append(ByteSource::of_file(mapped, 7, size));
    file.append(ByteSource::of_string(text.substr(8, size)));
    file.append_zeros(size);
    expected += text.substr(0, size) + text.substr(5, size) + text.substr(6, size) +
                text.substr(7, size) + text.substr(8, size) + std::string(size, '\0');
    EXPECT_EQ(file.position(), expected.size());
    const std::uint64_t hole = file.extend(100000);
    EXPECT_EQ(hole, expected.size());
    file.write_at(hole + 10, bytes_of("here"));
    file.copy_at(hole + 20, *mapped, 3, 70000);
    file.copy_at(hole + 80000, *memory, 3, 7);
    std::string part(4, ' ');
    file.read_at(hole + 10, std::as_writable_bytes(std::span(part)));
    EXPECT_EQ(part, "here");
    std::string filled(100000, '\0');
    filled.replace(10, 4, "here").replace(20, 70000, text, 3, 70000).replace(80000, 7, text, 3, 7);
    expected += filled;
  }
  EXPECT_EQ(code_of([&] { file.append_range(*mapped, 299999, 2); }), "io");
  EXPECT_THROW(file.write_at(file.position(), bytes_of("x")), InternalError);
  files.commit();
  EXPECT_TRUE(contents(folder / "out") == expected);
}

TEST(AtomicFile, WhatCannotBeWritten) {
  const Folder folder;
  EXPECT_EQ(code_of([&] { AtomicFile file(folder / "no/such/folder"); }), "io");
  EXPECT_EQ(code_of([&] { AtomicFile file("/dev/null"); }), "io");
  EXPECT_EQ(code_of([&] { AtomicFile file(folder / "."); }), "io");
  // A name of the greatest length leaves room for the temporary one.
  AtomicFileSet files;
  files.add(folder / std::string(255, 'n'));
  files.commit();
  EXPECT_EQ(folder.files(), 1U);
}

TEST(AtomicFileSet, AllOrNone) {
  const Folder folder;
  put(folder / "a", "old a");
  {
    AtomicFileSet set;
    set.add(folder / "a").append("new a");
    set.add(folder / "b").append("new b");
    set.add(folder / "c").append("new c");
    fs::create_directory(folder / "c");  // the last rename fails
    EXPECT_EQ(code_of([&] { set.commit(); }), "io");
  }
  EXPECT_EQ(contents(folder / "a"), "old a");
  EXPECT_FALSE(fs::exists(folder / "b"));
  EXPECT_EQ(folder.files(), 2U);
  fs::remove(folder / "c");
  AtomicFileSet set;
  set.add(folder / "a").append("new a");
  set.add(folder / "b").append("new b");
  set.commit();
  EXPECT_EQ(set.paths(), (std::vector<std::string>{folder / "a", folder / "b"}));
  EXPECT_EQ(contents(folder / "a"), "new a");
  EXPECT_EQ(contents(folder / "b"), "new b");
  EXPECT_EQ(folder.files(), 2U);
}

}  // namespace
}  // namespace onnx2nn
