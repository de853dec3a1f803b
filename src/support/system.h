// What systems do each in their own way, or not at all.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace onnx2nn {

/// Room for `size` bytes, which takes memory only as it is written to. Null where there is none.
std::byte* reserve_room(std::size_t size);
void release_room(std::byte* room, std::size_t size);

/// Asks for large pages where memory will be read in long strides. `room` begins at such a page.
void prefer_large_pages(std::byte* room, std::size_t size);
inline constexpr std::size_t kLargePage = std::size_t{2} << 20;

/// Copies up to `length` bytes from one open file into another, without having them here. Returns how many;
/// 0 or less where the system cannot, with the reason in errno.
std::int64_t copy_between_files(int from, std::uint64_t from_offset, int to, std::uint64_t to_offset,
                                std::uint64_t length);
/// Whether that moves no bytes, so that nobody does better by moving them on the way: in the browser a file is made of
/// parts of others.
#ifdef __EMSCRIPTEN__
inline constexpr bool kCopiesMoveNothing = true;
#else
inline constexpr bool kCopiesMoveNothing = false;
#endif


/// Fills the parts, one after the other, from consecutive bytes of an open file; as preadv.
std::int64_t read_parts(int file, std::span<const iovec> parts, std::uint64_t offset);

/// Says that a range of an open file will be read soon.
void will_read(int file, std::uint64_t offset, std::uint64_t length);

}  // namespace onnx2nn
