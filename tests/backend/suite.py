"""The cases of ONNX's own backend suite, and the manifest of those that do not pass.

Making the node cases takes ONNX's generators many seconds, so what they made is kept in
`.cache/`, by version, and shared by the test processes.
"""

import fcntl
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = Path(__file__).with_name("manifest.txt")
_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
# Changes when what is kept of a case does.
_CACHE_FORMAT = 1


@dataclass
class Case:
    """A model with inputs and expected outputs."""

    name: str
    category: str  # node, simple, light, pytorch-converted or pytorch-operator
    model: bytes
    data_sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock beside `path` against the other test processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cases() -> dict[str, Case]:
    """All cases by name, in order; the real models, which download, are left out."""
    path = ROOT / ".cache" / f"backend-{onnx.__version__}-{_CACHE_FORMAT}.pickle"
    with locked(path):
        if path.exists():
            with open(path, "rb") as f:
                return pickle.load(f)
        made = {c.name: c for c in sorted(_make_cases(), key=lambda c: c.name)}
        with open(path.with_suffix(".new"), "wb") as f:
            pickle.dump(made, f, protocol=pickle.HIGHEST_PROTOCOL)
        os.replace(path.with_suffix(".new"), path)
        return made


def _make_cases() -> Iterator[Case]:
    import numpy as np
    from onnx.backend.test.loader import load_model_tests

    with np.errstate(all="ignore"):
        node_cases = load_model_tests(kind="node")
    for c in node_cases:
        sets = [([_value(v) for v in i], [_value(v) for v in o]) for i, o in c.data_sets]
        yield Case(c.name, "node", c.model.SerializeToString(), sets, c.rtol, c.atol)
    for kind in ("simple", "pytorch-converted", "pytorch-operator"):
        for c in load_model_tests(kind=kind):
            folder = Path(c.model_dir)
            model = (folder / "model.onnx").read_bytes()
            yield Case(c.name, kind, model, _stored_sets(folder, model), c.rtol, c.atol)
    for c in load_model_tests(kind="real"):
        if "data/light/" in (c.url or ""):
            yield _light_case(c)


def _value(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _stored_sets(folder: Path, model: bytes) -> list[tuple[list[Any], list[Any]]]:
    graph = onnx.load_from_string(model).graph
    sets = []
    for data in sorted(folder.glob("test_data_set*")):
        sides = []
        for side, infos in (("input", graph.input), ("output", graph.output)):
            count = len(list(data.glob(f"{side}_*.pb")))
            files = [data / f"{side}_{i}.pb" for i in range(count)]
            sides.append([_stored(f, i.type) for f, i in zip(files, infos)])
        sets.append((sides[0], sides[1]))
    return sets


def _stored(path: Path, type_: Any) -> Any:
    kind = type_.WhichOneof("value")
    if kind == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(path.read_bytes()))
    if kind == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))
    return numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))


def _light_case(c: Any) -> Case:
    from onnx.backend.test.runner import Runner

    path = _DATA / "light" / Path(c.url).name
    graph = onnx.load(path).graph
    constants = {t.name for t in graph.initializer}
    inputs = [Runner.generate_dummy_data(i) for i in graph.input if i.name not in constants]
    outputs = [
        _stored(path.with_name(f"{path.stem}_output_{i}.pb"), o.type)
        for i, o in enumerate(graph.output)
    ]
    return Case(c.name, "light", path.read_bytes(), [(inputs, outputs)], c.rtol, c.atol)


@dataclass
class Entry:
    """A case that does not pass: in which forms, and why."""

    forms: set[str] = field(default_factory=set)
    reason: str = ""


def read_manifest() -> dict[str, Entry]:
    """The manifest's entries by case: lines `case | form, form | reason`."""
    entries = {}
    for line in MANIFEST.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        name, forms, reason = (part.strip() for part in line.split("|", 2))
        assert name not in entries, f"{name} is listed twice"
        assert reason, f"{name} has no reason"
        entries[name] = Entry(set(forms.split(", ")), reason)
    return entries


def accept(name: str, failures: dict[str, str], allow_new: bool) -> bool:
    """Sets a case's line to what failed; whether that was allowed (it may only shrink)."""
    with locked(ROOT / ".cache" / "backend-manifest"):
        entries = read_manifest()
        old = entries.get(name, Entry())
        if failures.keys() == old.forms:
            return True
        grows = bool(failures.keys() - old.forms)
        if grows and not allow_new:
            return False
        entries[name] = Entry(set(failures), old.reason or _short(next(iter(failures.values()))))
        if not failures:
            del entries[name]
        head = [x for x in MANIFEST.read_text().splitlines() if x.startswith("#")]
        lines = [
            f"{n} | {', '.join(sorted(e.forms))} | {e.reason}" for n, e in sorted(entries.items())
        ]
        MANIFEST.write_text("\n".join(head + lines) + "\n")
        return True


def _short(message: str) -> str:
    return " ".join(message.replace("|", "/").split())[:160]
