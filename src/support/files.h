// Files as systems have them: what is open is a number, as POSIX has it, and a function that fails leaves the reason
// in errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace onnx2nn::files {

enum class Kind : std::uint8_t { Regular, Folder, Device, Pipe, Socket, Other };
/// "a folder"
std::string_view kind_name(Kind kind);

struct Info {
  Kind kind = Kind::Other;
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t seconds = 0;  // of the last change
  std::int64_t nanoseconds = 0;
  bool is_named = true;  // not removed while it is open
  bool is_mine = true;   // owned by the user who runs this

  bool is_same_file(const Info& other) const { return device == other.device && inode == other.inode; }
};

std::optional<Info> info_of(int file);
/// Of what a path leads to, behind links.
std::optional<Info> info_at(const std::string& path);
/// Of the link itself, where it is one.
std::optional<Info> info_of_link(const std::string& path);

// ---- Opening: -1 where it cannot be done ----

/// To read. Does not wait for somebody to write, as the end of a pipe would.
int open_to_read(const std::string& path);
/// The same below the folder `root`, an absolute path without links; an error where a link is on the way.
int open_below(const std::string& root, const std::string& name);
/// To read and write a file that is there.
int open_to_change(const std::string& path);
/// To read and write a new file; EEXIST where there is one.
int open_new(const std::string& path);
/// A file without a name, which the system removes unless `give_name` gives it one. Not every system has such.
int open_nameless(const std::string& folder);
/// What a name stands for, a folder too, but no link.
int open_found(const std::string& path);
void close_file(int file);
bool close_written(int file);

// ---- Locks, which end with the process. Not every file system has them ----

/// Waits while somebody else has it.
void lock(int file);
bool try_lock(int file);
/// What keeps others from locking the folder until it is closed; -1 with EWOULDBLOCK where somebody else has it, and with
/// another reason where there is no such lock.
int lock_folder(const std::string& folder);

// ---- Contents ----

/// How many bytes were read, fewer than asked for at the end of the file; negative where it failed.
std::int64_t read_at(int file, std::span<std::byte> out, std::uint64_t offset);
/// How many bytes were written; negative where it failed.
std::int64_t write_at(int file, std::span<const std::byte> bytes, std::uint64_t offset);
/// Fills `count` rows of `row_size` bytes, one each `stride` bytes of `out`, from consecutive bytes of the file; as
/// read_at. No more rows than kMostRows.
constexpr std::size_t kMostRows = 256;  // fewer than any system's limit for one call
std::int64_t read_rows(int file, std::byte* out, std::size_t row_size, std::size_t stride, std::size_t count,
                       std::uint64_t offset);
/// Copies up to `length` bytes from one open file into another, without having them here. Returns how many;
/// 0 or less where the system cannot.
std::int64_t copy_between(int from, std::uint64_t from_offset, int to, std::uint64_t to_offset, std::uint64_t length);
/// Whether that moves no bytes, so that nobody does better by moving them on the way: in the browser a file is made of
/// parts of others.
#ifdef __EMSCRIPTEN__
inline constexpr bool kCopiesMoveNothing = true;
#else
inline constexpr bool kCopiesMoveNothing = false;
#endif
/// Says that a range will be read soon.
void will_read(int file, std::uint64_t offset, std::uint64_t length);
/// What nobody wrote reads as zeros.
bool set_size(int file, std::int64_t size);
/// Waits for the disk.
bool sync(int file);
void sync_folder(const std::string& folder);

// ---- Names ----

/// Names a file that was opened without one.
bool give_name(int file, const std::string& path);
/// At once: whoever looks finds what was there before or the new file.
bool rename_over(const std::string& from, const std::string& to);
/// A second name.
bool link(const std::string& from, const std::string& to);
bool remove(const std::string& path);
/// Gives an open file what may be done with the one at `path`, if there is one, by whom.
void take_mode(int file, const std::string& path);
bool may_write(const std::string& path);

/// Whether an operation that failed with `error_number` would fail as well in another way.
bool is_disk_error(int error_number);
/// Whether `link` failed as file systems do that have no links, or no more of them.
bool has_no_links(int error_number);

}  // namespace onnx2nn::files
