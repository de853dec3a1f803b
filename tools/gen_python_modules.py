"""Writes src/python_modules.h: the modules of Python that no written file may hide.

python tools/gen_python_modules.py
"""

import sys
from pathlib import Path

from gen_unicode import lines

OUT = Path(__file__).parents[1] / "src/python_modules.h"
# Of the Pythons from 3.10 to 3.14, whatever runs this.
OTHERS = {"annotationlib", "asynchat", "asyncore", "binhex", "compression", "distutils", "imp"}
OTHERS |= {"smtpd", "tomllib"}


def main() -> None:
    names = sorted(f'"{n}"' for n in OTHERS | sys.stdlib_module_names)
    OUT.write_text(f"""\
// Made by tools/gen_python_modules.py. Do not edit.
#pragma once

#include <string_view>

namespace onnx2nn {{

/// The top-level modules of the standard library, in order.
inline constexpr std::string_view kPythonModules[] = {{
{lines(names)}
}};

}}  // namespace onnx2nn
""")


if __name__ == "__main__":
    main()
