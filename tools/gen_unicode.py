"""Writes src/support/unicode_tables.h: what src/support/identifier.cpp knows of characters.

    python tools/gen_unicode.py

The tables are those of the Python that runs this. Characters that a later Unicode adds are no
letters to the native core; that is right for every Python, if not as wide as it could be.
"""

import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

OUT = Path(__file__).parents[1] / "src/support/unicode_tables.h"
HANGUL = range(0xAC00, 0xD7A4)  # composed by arithmetic


def ranges(holds: Callable[[str], bool]) -> list[tuple[int, int]]:
    """The runs of code points for which `holds`, ends included."""
    out: list[tuple[int, int]] = []
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000 or not holds(chr(code)):
            continue
        if out and out[-1][1] == code - 1:
            out[-1] = (out[-1][0], code)
        else:
            out.append((code, code))
    return out


def lines(items: Iterable[str]) -> str:
    """Items in lines of at most 100 columns."""
    out, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 100:
            out.append(line)
            line = "   "
        line += f" {item},"
    return "\n".join([*out, line])


def table(name: str, kind: str, items: list[str]) -> str:
    return f"inline constexpr {kind} {name}[] = {{\n{lines(items)}\n}};\n"


def main() -> None:
    every = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    starts = ranges(str.isidentifier)
    parts = ranges(lambda c: ("a" + c).isidentifier())
    classes: list[tuple[int, int, int]] = []
    for c in every:
        value = unicodedata.combining(c)
        if value == 0:
            continue
        if classes and classes[-1][1] == ord(c) - 1 and classes[-1][2] == value:
            classes[-1] = (classes[-1][0], ord(c), value)
        else:
            classes.append((ord(c), ord(c), value))
    pool: list[int] = []
    decompositions: list[tuple[int, int, int]] = []
    pairs: list[tuple[int, int, int]] = []
    for c in every:
        if ord(c) in HANGUL:
            continue
        full = unicodedata.normalize("NFKD", c)
        if full != c:
            decompositions.append((ord(c), len(pool), len(full)))
            pool += map(ord, full)
        canonical = unicodedata.decomposition(c).split()
        is_pair = len(canonical) == 2 and not canonical[0].startswith("<")
        if is_pair and unicodedata.normalize("NFC", c) == c:
            first, second = (int(x, 16) for x in canonical)
            pairs.append((first, second, ord(c)))
    text = f"""\
// Made by tools/gen_unicode.py from Unicode {unicodedata.unidata_version}. Do not edit.
#pragma once

#include <cstdint>

namespace onnx2nn::unicode {{

struct Range {{
  char32_t first, last;
}};
struct Class {{
  char32_t first, last;
  std::uint8_t value;
}};
struct Decomposition {{
  char32_t code;
  std::uint16_t at;  // in kDecomposed
  std::uint8_t length;
}};
struct Pair {{
  char32_t first, second, composed;
}};

"""
    text += table("kStarts", "Range", [f"{{{a:#x}, {b:#x}}}" for a, b in starts])
    text += table("kParts", "Range", [f"{{{a:#x}, {b:#x}}}" for a, b in parts])
    text += table("kClasses", "Class", [f"{{{a:#x}, {b:#x}, {v}}}" for a, b, v in classes])
    text += table(
        "kDecompositions", "Decomposition", [f"{{{c:#x}, {a}, {n}}}" for c, a, n in decompositions]
    )
    text += table("kDecomposed", "char32_t", [f"{c:#x}" for c in pool])
    text += table("kPairs", "Pair", [f"{{{a:#x}, {b:#x}, {c:#x}}}" for a, b, c in sorted(pairs)])
    OUT.write_text(text + "\n}  // namespace onnx2nn::unicode\n")


if __name__ == "__main__":
    main()
