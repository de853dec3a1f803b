"""The native core: its options in the forms that it takes, and what it refuses."""

import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from onnx2nn import custom_ops
from onnx2nn.errors import Diagnostic, Error, diagnostic_text, grouped
from onnx2nn.log import step
from onnx2nn.source import Source

__all__ = [
    "USAGE",
    "Axes",
    "InputShapes",
    "conversion_of",
    "core_axes",
    "core_options",
    "core_shapes",
    "inspection_of",
    "native",
    "refused",
    "run_native",
]

# Dims by input name: numbers, or None, -1 or a name for a dim that stays open.
InputShapes: TypeAlias = Mapping[str, Sequence[int | str | None]]
# Axes by input name.
Axes: TypeAlias = Mapping[str, int | Sequence[int]]
# The codes of diagnostics about files themselves.
UNREADABLE = {"io", "would-overwrite"}
# The codes of what was asked for and cannot be done.
USAGE = {"bad-option", "input-shape"}


def native() -> Any:
    """The native module; imported on first use, so that `import onnx2nn` stays cheap."""
    from onnx2nn import _native

    return _native


def core_options(**options: Any) -> dict[str, Any]:
    """The options of `convert` or `simplify_unchecked` as the core takes them.

    Those at their default are left out. Raises TypeError for values that are no such option's.
    """
    chosen: dict[str, Any] = {}
    for name, value in options.items():
        if name in _FORMS:
            in_core = _FORMS[name](value) if value else None
        else:
            # Only simplification is on where nothing is said.
            in_core = None if value is False and name != "simplify" else value
        if in_core is not None:
            chosen[name] = in_core
    return chosen


def core_shapes(shapes: InputShapes) -> dict[str, list[int | str]]:
    """Shapes as the core takes them: -1 for a dim that stays as it is. TypeError where they are none."""
    if not isinstance(shapes, Mapping):
        raise TypeError(f"input_shapes: {shapes!r} is not a dict of dims by input name")
    out: dict[str, list[int | str]] = {}
    for name, dims in shapes.items():
        if not isinstance(name, str) or isinstance(dims, str) or not isinstance(dims, Iterable):
            raise TypeError(f"input_shapes: {name!r}: {dims!r} is not a list of dims")
        out[name] = [
            -1 if d is None else d if isinstance(d, str) else _whole("input_shapes", d)
            for d in dims
        ]
    return out


def core_axes(axes: Axes) -> dict[str, list[int]]:
    """Axes as the core takes them. TypeError where they are none."""
    if not isinstance(axes, Mapping):
        raise TypeError(f"dynamic: {axes!r} is not a dict of axes by input name")
    return {
        name: [
            _whole("dynamic", axis)
            for axis in (given if isinstance(given, (list, tuple)) else [given])
        ]
        for name, given in axes.items()
    }


def _whole(option: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{option}: {value!r} is not a whole number") from None


def _core_roots(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    if isinstance(paths, (str, bytes)):
        raise TypeError(f"data_roots: {paths!r} is one folder; give a list of folders")
    return [os.fspath(p) for p in paths]


# What options are to the core that takes other forms of them.
_FORMS: dict[str, Callable[[Any], Any]] = {
    "input_shapes": core_shapes,
    "dynamic": core_axes,
    "data_roots": _core_roots,
}


def conversion_of(source: Source, **options: Any) -> Any:
    """The native Conversion of a model, whether it was refused or not."""
    with step(f"convert {source.name}"):
        return native().convert(source.data, _with_custom_ops(options))


def inspection_of(source: Source, **options: Any) -> dict[str, Any]:
    """What the core says of a model: the keys of `inspect`, and `readable`."""
    with step(f"inspect {source.name}"):
        return dict(native().inspect(source.data, _with_custom_ops(options)))


def _with_custom_ops(options: dict[str, Any]) -> dict[str, Any]:
    known = [dict(op) for op in custom_ops.known_ops.values()]
    return core_options(**options, custom_ops=known)


def run_native(source: Source, options: dict[str, Any]) -> Any:
    """The native Conversion of a model; `options` are those of `core_options`.

    Raises Error where the model was refused.
    """
    conversion = conversion_of(source, **options)
    if not conversion.ok:
        raise refused(source, list(conversion.diagnostics), conversion.readable)
    return conversion


def refused(source: Source, diagnostics: list[Diagnostic], readable: bool = True) -> Error:
    """The Error for a model that the core refused, with every reason in its text."""
    errors = [d for d in diagnostics if d.get("severity") == "error"] or diagnostics
    lines = [diagnostic_text(source.name, *group) for group in grouped(errors)]
    return Error(
        "\n".join(lines) or f"{source.name}: cannot be converted",
        diagnostics,
        unreadable=not readable or any(d.get("code") in UNREADABLE for d in errors),
        usage=any(d.get("code") in USAGE for d in errors),
    )
