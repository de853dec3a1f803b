"""How many tests check each operator, counted without running them."""

import contextlib
import io
import types
from collections import Counter
from collections.abc import Iterator
from typing import Any

from op_facts import ROOT, Key


def numeric_cases(known: set[Key]) -> Counter[Key]:
    """Tests in tests/numeric by the operators they name: in their parameters or in their code."""
    import pytest

    collected: list[Any] = []

    class Collector:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            collected.extend(items)

    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet):
        pytest.main(
            [str(ROOT / "tests" / "numeric"), "--collect-only", "-q", "-n", "0"]
            + ["-p", "no:cacheprovider"],
            plugins=[Collector()],
        )
    assert collected, quiet.getvalue()
    by_type: dict[str, list[str]] = {}
    for domain, name in known:
        by_type.setdefault(name, []).append(domain)
    counts: Counter[Key] = Counter()
    code_words: dict[Any, set[str]] = {}
    for item in collected:
        function = item.function
        if function not in code_words:
            code_words[function] = set(_words_of(function, set()))
        words = code_words[function] | set(_strings(list(_params(item).values())))
        for name in words & by_type.keys():
            # In several domains: the one that is named, else ONNX's own.
            domains = sorted(by_type[name])
            named = [d for d in domains if d and d in words]
            counts.update((d, name) for d in named or domains[:1])
    return counts


def _params(item: Any) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def _words_of(function: Any, seen: set[Any]) -> Iterator[str]:
    """Strings in a function, and in what it uses of its own test module."""
    if function in seen:
        return
    seen.add(function)
    space = function.__globals__
    pending = [function.__code__]
    while pending:
        code = pending.pop()
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                pending.append(constant)
            else:
                yield from _strings(constant)
        for name in code.co_names:
            used = space.get(name)
            if isinstance(used, types.FunctionType):
                if used.__module__ == function.__module__:
                    yield from _words_of(used, seen)
            else:
                yield from _strings(used)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | set | frozenset):
        for v in value:
            yield from _strings(v)
    elif isinstance(value, dict):
        for k, v in value.items():
            yield from _strings(k)
            yield from _strings(v)


def drawn_cases() -> Counter[Key]:
    """The seeds that tests/differential tries of each operator; a few make no sense and are left."""
    from tests.differential.table import ROWS, opsets_of
    from tests.differential.test_table import SEEDS

    return Counter({(d, name): len(opsets_of(name, d)) * len(SEEDS) for d, name in ROWS})
