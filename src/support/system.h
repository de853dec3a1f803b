// What systems do each in their own way beside files (files.h) and paths (path.h).
#pragma once

#include <cstddef>
#include <optional>

namespace onnx2nn {

/// Room for `size` bytes, which takes memory only as it is written to. Null where there is none.
std::byte* reserve_room(std::size_t size);
void release_room(std::byte* room, std::size_t size);

/// Asks for large pages where memory will be read in long strides. `room` begins at such a page.
void prefer_large_pages(std::byte* room, std::size_t size);
inline constexpr std::size_t kLargePage = std::size_t{2} << 20;

/// Makes standard output and errors take UTF-8 as it is, for the rest of the process.
void set_up_output();
/// The width of the terminal that standard output is; nothing where it is none.
std::optional<std::size_t> terminal_width();

/// Calls `handler` for what asks the process to end, once for each signal: a second one ends it at once. What whoever
/// started us ignores, as nohup does, stays ignored.
void on_stop_signals(void (*handler)(int));

}  // namespace onnx2nn
