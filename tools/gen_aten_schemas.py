"""Writes src/torch/aten_schemas.txt: what ATen offers, one schema a line, as the installed torch has it.

Left out are the variants that write into an argument (`.out` overloads and names that end in `_`), which
emitted code never calls.
"""

from pathlib import Path

import torch

PREFIX = "aten::"
IN_PLACE_OPERATORS = {"__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"}


def is_wanted(schema: torch._C.FunctionSchema) -> bool:
    name = schema.name.removeprefix(PREFIX)
    overload = schema.overload_name
    in_place = (name.endswith("_") and not name.endswith("__")) or name in IN_PLACE_OPERATORS
    writes_out = (
        overload == "out" or overload.endswith("_out") or any(a.is_out for a in schema.arguments)
    )
    return schema.name.startswith(PREFIX) and not in_place and not writes_out


def main() -> None:
    schemas = filter(is_wanted, torch._C._jit_get_all_schemas())
    lines = sorted({str(schema).removeprefix(PREFIX) for schema in schemas})
    path = Path(__file__).parents[1] / "src" / "torch" / "aten_schemas.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} schemas of torch {torch.__version__}")


if __name__ == "__main__":
    main()
