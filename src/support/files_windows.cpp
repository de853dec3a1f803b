#include <fcntl.h>
#include <io.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "support/files.h"
#include "support/path.h"
#include "support/windows.h"

namespace onnx2nn::files {
namespace {

int error_number_of(DWORD error) {
  switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_DRIVE:
    case ERROR_INVALID_NAME:
    case ERROR_BAD_NETPATH:
    case ERROR_BAD_NET_NAME:
    case ERROR_BAD_PATHNAME:
      return ENOENT;
    case ERROR_ACCESS_DENIED:
    case ERROR_WRITE_PROTECT:
    case ERROR_PRIVILEGE_NOT_HELD:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_USER_MAPPED_FILE:
    case ERROR_DELETE_PENDING:
      return EACCES;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS:
      return EEXIST;
    case ERROR_TOO_MANY_OPEN_FILES:
      return EMFILE;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
      return ENOMEM;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL:
    case ERROR_DISK_QUOTA_EXCEEDED:
      return ENOSPC;
    case ERROR_INVALID_FUNCTION:
    case ERROR_NOT_SUPPORTED:
    case ERROR_CALL_NOT_IMPLEMENTED:
      return ENOSYS;
    case ERROR_INVALID_PARAMETER:
      return EINVAL;
    case ERROR_TOO_MANY_LINKS:
      return EMLINK;
    case ERROR_NOT_SAME_DEVICE:
      return EXDEV;
    case ERROR_FILENAME_EXCED_RANGE:
      return ENAMETOOLONG;
    case ERROR_DIRECTORY:
      return ENOTDIR;
    case ERROR_CANT_RESOLVE_FILENAME:
      return ELOOP;
    default:
      return EIO;
  }
}

/// `done`, with the reason in errno where it is false.
bool succeeded(bool done) {
  if (!done) errno = error_number_of(::GetLastError());
  return done;
}

HANDLE handle_of(int file) {
  return reinterpret_cast<HANDLE>(::_get_osfhandle(file));  // NOLINT(performance-no-int-to-ptr)
}

/// A handle that is closed with its owner.
class Handle {
 public:
  explicit Handle(HANDLE handle) : handle_(handle) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (is_open()) ::CloseHandle(handle_);
  }
  bool is_open() const { return handle_ != INVALID_HANDLE_VALUE; }
  HANDLE get() const { return handle_; }
  /// As a number, which then owns it; -1 where it is not open.
  int release() {
    if (!is_open()) return -1;
    const int file = ::_open_osfhandle(reinterpret_cast<std::intptr_t>(handle_), _O_BINARY | _O_NOINHERIT);
    if (file >= 0) handle_ = INVALID_HANDLE_VALUE;
    return file;
  }

 private:
  HANDLE handle_;
};

constexpr DWORD kShared = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
constexpr DWORD kFolders = FILE_FLAG_BACKUP_SEMANTICS;  // takes folders, too
constexpr DWORD kNoLink = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT;

/// As CreateFile, of what others may read, write, rename and remove meanwhile.
HANDLE opened(const std::string& path, DWORD access, DWORD disposition, DWORD flags, DWORD shared = kShared) {
  const HANDLE handle =
      ::CreateFileW(wide_of(path).c_str(), access, shared, nullptr, disposition, flags, nullptr);
  (void)succeeded(handle != INVALID_HANDLE_VALUE);
  return handle;
}

Kind kind_of(HANDLE handle, DWORD attributes) {
  switch (::GetFileType(handle)) {
    case FILE_TYPE_DISK:
      if ((attributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) {
        FILE_ATTRIBUTE_TAG_INFO tag{};
        // One that was opened as a link. Others are files that something else looks after.
        if (::GetFileInformationByHandleEx(handle, FileAttributeTagInfo, &tag, sizeof tag) != 0 &&
            IsReparseTagNameSurrogate(tag.ReparseTag))
          return Kind::Other;
      }
      return (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0 ? Kind::Folder : Kind::Regular;
    case FILE_TYPE_CHAR:
      return Kind::Device;
    case FILE_TYPE_PIPE:
      return Kind::Pipe;
    default:
      return Kind::Other;
  }
}

std::uint64_t joined(DWORD high, DWORD low) { return std::uint64_t{high} << 32U | low; }

std::optional<Info> info_of(HANDLE handle) {
  if (handle == INVALID_HANDLE_VALUE) return std::nullopt;
  Info out;
  BY_HANDLE_FILE_INFORMATION found{};
  const bool is_file = ::GetFileType(handle) == FILE_TYPE_DISK;
  if (is_file && !succeeded(::GetFileInformationByHandle(handle, &found) != 0)) return std::nullopt;
  out.kind = kind_of(handle, found.dwFileAttributes);
  if (!is_file) return out;
  out.device = found.dwVolumeSerialNumber;
  out.inode = joined(found.nFileIndexHigh, found.nFileIndexLow);
  out.size = joined(found.nFileSizeHigh, found.nFileSizeLow);
  constexpr std::uint64_t kTicks = 10'000'000;  // a second has
  const std::uint64_t changed = joined(found.ftLastWriteTime.dwHighDateTime, found.ftLastWriteTime.dwLowDateTime);
  out.seconds = static_cast<std::int64_t>(changed / kTicks);
  out.nanoseconds = static_cast<std::int64_t>(changed % kTicks * 100);
  FILE_STANDARD_INFO standard{};
  if (::GetFileInformationByHandleEx(handle, FileStandardInfo, &standard, sizeof standard) != 0)
    out.is_named = standard.NumberOfLinks > 0 && standard.DeletePending == 0;
  return out;
}

/// Where an open file is, without links; empty where the system does not say.
std::wstring final_path(HANDLE handle) {
  constexpr DWORD kFlags = FILE_NAME_NORMALIZED | VOLUME_NAME_NT;
  const DWORD size = ::GetFinalPathNameByHandleW(handle, nullptr, 0, kFlags);
  std::wstring out(size, L'\0');
  const DWORD length = ::GetFinalPathNameByHandleW(handle, out.data(), size, kFlags);
  out.resize(length < size ? length : 0);
  return out;
}

bool is_same_path(std::wstring_view a, std::wstring_view b) {
  return ::CompareStringOrdinal(a.data(), static_cast<int>(a.size()), b.data(), static_cast<int>(b.size()), TRUE) ==
         CSTR_EQUAL;
}

std::wstring full_path(const std::string& path) {
  const std::wstring wide = wide_of(path);
  std::wstring out(::GetFullPathNameW(wide.c_str(), 0, nullptr, nullptr), L'\0');
  out.resize(::GetFullPathNameW(wide.c_str(), static_cast<DWORD>(out.size()), out.data(), nullptr));
  return out;
}

/// No part of any file: bytes that are locked cannot be read by others.
OVERLAPPED locked_byte() {
  OVERLAPPED out{};
  out.Offset = 0xFFFFFFFE;
  out.OffsetHigh = 0x7FFFFFFF;
  return out;
}

OVERLAPPED at_offset(std::uint64_t offset) {
  OVERLAPPED out{};
  out.Offset = static_cast<DWORD>(offset);
  out.OffsetHigh = static_cast<DWORD>(offset >> 32U);
  return out;
}

DWORD at_once(std::size_t size) { return static_cast<DWORD>(std::min<std::size_t>(size, 1U << 30)); }

// Of Windows 10 and its file systems: a name is free at once, also while what had it is open, and whatever attributes
// that has.
constexpr auto kRenameEx = static_cast<FILE_INFO_BY_HANDLE_CLASS>(22);
constexpr auto kDispositionEx = static_cast<FILE_INFO_BY_HANDLE_CLASS>(21);
constexpr DWORD kRenameFlags = 0x1 | 0x2 | 0x40;        // replace, as POSIX does, also what is read-only
constexpr DWORD kDispositionFlags = 0x1 | 0x2 | 0x10;  // remove, likewise

struct RenameEx {
  DWORD flags;
  HANDLE root;
  DWORD name_size;  // in bytes
  WCHAR name[1];
};

bool rename_as_posix(const std::string& from, const std::string& to) {
  const Handle file(opened(from, DELETE | SYNCHRONIZE, OPEN_EXISTING, kNoLink));
  if (!file.is_open()) return false;
  const std::wstring name = full_path(to);
  std::vector<std::byte> room(sizeof(RenameEx) + name.size() * sizeof(WCHAR));
  RenameEx info{kRenameFlags, nullptr, static_cast<DWORD>(name.size() * sizeof(WCHAR)), {}};
  std::memcpy(room.data(), &info, sizeof info);
  std::memcpy(room.data() + offsetof(RenameEx, name), name.data(), name.size() * sizeof(WCHAR));
  return ::SetFileInformationByHandle(file.get(), kRenameEx, room.data(), static_cast<DWORD>(room.size())) != 0;
}

bool remove_as_posix(const std::string& path) {
  const Handle file(opened(path, DELETE | SYNCHRONIZE, OPEN_EXISTING, kNoLink));
  DWORD flags = kDispositionFlags;
  return file.is_open() && ::SetFileInformationByHandle(file.get(), kDispositionEx, &flags, sizeof flags) != 0;
}

/// Takes a file's write protection away; says whether it had one.
bool unprotect(const std::wstring& path) {
  const DWORD attributes = ::GetFileAttributesW(path.c_str());
  if (attributes == INVALID_FILE_ATTRIBUTES || (attributes & FILE_ATTRIBUTE_READONLY) == 0) return false;
  return ::SetFileAttributesW(path.c_str(), attributes & ~DWORD{FILE_ATTRIBUTE_READONLY}) != 0;
}

void protect(const std::wstring& path) {
  const DWORD attributes = ::GetFileAttributesW(path.c_str());
  if (attributes != INVALID_FILE_ATTRIBUTES) ::SetFileAttributesW(path.c_str(), attributes | FILE_ATTRIBUTE_READONLY);
}

}  // namespace

std::optional<Info> info_of(int file) { return info_of(handle_of(file)); }

std::optional<Info> info_at(const std::string& path) {
  const Handle file(opened(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING, kFolders));
  return info_of(file.get());
}

std::optional<Info> info_of_link(const std::string& path) {
  const Handle file(opened(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING, kNoLink));
  return info_of(file.get());
}

// ---- Opening ----

int open_to_read(const std::string& path) {
  return Handle(opened(path, GENERIC_READ, OPEN_EXISTING, kFolders)).release();
}

// What was opened is looked at, not the way to it: that may be another a moment later.
int open_below(const std::string& root, const std::string& name) {
  const Handle folder(opened(root, FILE_READ_ATTRIBUTES, OPEN_EXISTING, kFolders));
  if (!folder.is_open()) return -1;
  Handle file(opened(path_text(to_path(root) / to_path(name)), GENERIC_READ, OPEN_EXISTING, kFolders));
  if (!file.is_open()) return -1;
  std::wstring expected = final_path(folder.get());
  if (!expected.ends_with(L'\\')) expected += L'\\';
  expected += to_path(name).make_preferred().native();
  if (is_same_path(final_path(file.get()), expected)) return file.release();
  errno = ELOOP;
  return -1;
}

int open_to_change(const std::string& path) {
  return Handle(opened(path, GENERIC_READ | GENERIC_WRITE, OPEN_EXISTING, 0)).release();
}

int open_new(const std::string& path) {
  return Handle(opened(path, GENERIC_READ | GENERIC_WRITE, CREATE_NEW, FILE_ATTRIBUTE_NORMAL)).release();
}

int open_nameless(const std::string&) {
  errno = ENOSYS;
  return -1;
}

int open_found(const std::string& path) {
  Handle file(opened(path, GENERIC_READ, OPEN_EXISTING, kNoLink));
  const auto info = info_of(file.get());
  return info && info->kind != Kind::Other ? file.release() : -1;
}

void close_file(int file) { ::_close(file); }

bool close_written(int file) { return ::_close(file) == 0; }

// ---- Locks ----

void lock(int file) {
  OVERLAPPED byte = locked_byte();
  ::LockFileEx(handle_of(file), LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &byte);
}

bool try_lock(int file) {
  OVERLAPPED byte = locked_byte();
  return succeeded(
      ::LockFileEx(handle_of(file), LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &byte) != 0);
}

// Folders have no locks: a file in it stands for one, which goes with whoever has it open, however that ends.
int lock_folder(const std::string& folder) {
  const std::string name = path_text(to_path(folder) / L".onnx2nn-lock");
  Handle file(opened(name, GENERIC_WRITE, OPEN_ALWAYS, FILE_ATTRIBUTE_HIDDEN | FILE_FLAG_DELETE_ON_CLOSE, 0));
  const DWORD error = ::GetLastError();
  if (file.is_open()) return file.release();
  const bool is_there = ::GetFileAttributesW(wide_of(name).c_str()) != INVALID_FILE_ATTRIBUTES ||
                        ::GetLastError() == ERROR_ACCESS_DENIED;  // it is being removed
  errno = is_there && (error == ERROR_SHARING_VIOLATION || error == ERROR_ACCESS_DENIED) ? EWOULDBLOCK
                                                                                         : error_number_of(error);
  return -1;
}

// ---- Contents ----

std::int64_t read_at(int file, std::span<std::byte> out, std::uint64_t offset) {
  OVERLAPPED at = at_offset(offset);
  DWORD done = 0;
  if (::ReadFile(handle_of(file), out.data(), at_once(out.size()), &done, &at) != 0) return done;
  if (::GetLastError() == ERROR_HANDLE_EOF) return 0;
  return succeeded(false) ? 0 : -1;
}

std::int64_t write_at(int file, std::span<const std::byte> bytes, std::uint64_t offset) {
  OVERLAPPED at = at_offset(offset);
  DWORD done = 0;
  return succeeded(::WriteFile(handle_of(file), bytes.data(), at_once(bytes.size()), &done, &at) != 0)
             ? std::int64_t{done}
             : -1;
}

std::int64_t read_rows(int file, std::byte* out, std::size_t row_size, std::size_t stride, std::size_t count,
                       std::uint64_t offset) {
  std::vector<std::byte> rows(row_size * count);
  const std::int64_t n = read_at(file, rows, offset);
  if (n < 0 || static_cast<std::size_t>(n) < rows.size()) return n;
  for (std::size_t i = 0; i < count; ++i) std::memcpy(out + i * stride, rows.data() + i * row_size, row_size);
  return n;
}

std::int64_t copy_between(int, std::uint64_t, int, std::uint64_t, std::uint64_t) {
  errno = ENOSYS;
  return -1;
}

void will_read(int, std::uint64_t, std::uint64_t) {}

bool set_size(int file, std::int64_t size) {
  FILE_END_OF_FILE_INFO info{};
  info.EndOfFile.QuadPart = size;
  return succeeded(::SetFileInformationByHandle(handle_of(file), FileEndOfFileInfo, &info, sizeof info) != 0);
}

bool sync(int file) { return succeeded(::FlushFileBuffers(handle_of(file)) != 0); }

void sync_folder(const std::string&) {}  // names are in the file system's journal

// ---- Names ----

bool give_name(int, const std::string&) {
  errno = ENOSYS;
  return false;
}

bool rename_over(const std::string& from, const std::string& to) {
  const std::wstring target = wide_of(to);
  const DWORD attributes = ::GetFileAttributesW(target.c_str());
  const bool was_protected =
      attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_READONLY) != 0;
  bool done = rename_as_posix(from, to);
  if (!done) {
    unprotect(target);
    done = succeeded(::MoveFileExW(wide_of(from).c_str(), target.c_str(), MOVEFILE_REPLACE_EXISTING) != 0);
  }
  const int error_number = errno;
  if (was_protected) protect(target);
  errno = error_number;
  return done;
}

bool link(const std::string& from, const std::string& to) {
  return succeeded(::CreateHardLinkW(wide_of(to).c_str(), wide_of(from).c_str(), nullptr) != 0);
}

bool remove(const std::string& path) {
  if (remove_as_posix(path)) return true;
  const std::wstring wide = wide_of(path);
  unprotect(wide);
  return succeeded(::DeleteFileW(wide.c_str()) != 0);
}

void take_mode(int, const std::string&) {}  // rename_over keeps the write protection

bool may_write(const std::string& path) {
  const DWORD attributes = ::GetFileAttributesW(wide_of(path).c_str());
  return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_READONLY) == 0;
}

bool is_disk_error(int error_number) { return error_number == ENOSPC || error_number == EIO; }

bool has_no_links(int error_number) {
  return error_number == EPERM || error_number == EACCES || error_number == ENOSYS || error_number == EMLINK ||
         error_number == EXDEV;
}

}  // namespace onnx2nn::files
