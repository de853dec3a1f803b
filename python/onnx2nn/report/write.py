"""A report as one HTML file."""

import base64
import contextlib
import functools
import hashlib
import json
import os
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx2nn import __version__
from onnx2nn.errors import counted, in_order
from onnx2nn.report.subject import Subject

if TYPE_CHECKING:
    from onnx2nn.report.blocks import Block

__all__ = ["MARK", "environment", "missing", "render", "write"]

MARK = 'content="onnx2nn report'  # by which a file is known as ours

_MOST_SOURCE = 120_000  # characters; highlighted text is about four times as long
_MOST_ROWS = 400  # of a table
_MOST_TEXT = 400  # characters of one name or message
_MOST_BYTES, _LEAST_SHARE = 2_000_000, 1 / 64
_FOLDER = Path(__file__).parent


def missing() -> str | None:
    """What a report would need and is not installed."""
    needed = ("bokeh", "pygments", "jinja2")
    lacking = [m for m in needed if find_spec(m) is None]
    if not lacking:
        return None
    return f'--report: {", ".join(lacking)} not installed; pip install "onnx2nn[report]"'


def write(path: str | os.PathLike[str], subject: Subject) -> None:
    """Write the report about `subject` to a file; OSError where that cannot be."""
    page = render(subject).encode("utf-8", "replace")
    folder = os.path.dirname(path) or "."
    os.makedirs(folder, exist_ok=True)
    # Nothing half-written is ever there.
    made = os.path.join(folder, f".onnx2nn-{secrets.token_hex(8)}")
    try:
        with open(made, "xb") as file:
            file.write(page)
        os.replace(made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(made)
        raise


def render(subject: Subject) -> str:
    """The page, below 2 MB whatever the model is: less of it is shown where it would be larger."""
    share, page = 1.0, _rendered(subject, 1.0)
    while len(page.encode("utf-8", "replace")) > _MOST_BYTES and share > _LEAST_SHARE:
        share /= 2
        page = _rendered(subject, share)
    return page


def _rendered(subject: Subject, share: float) -> str:
    """The page with a share of what it has at most of modules, nodes, rows and source."""
    check = subject.check
    root = _root(subject, share)
    items: dict[str, Any] = {}
    histograms: list[tuple[str, str]] = []
    if check is not None and check.nodes:
        from onnx2nn.report.charts import depth_chart

        items["depth"] = depth_chart(check.nodes, check.kinds, "depth", share)
    if check is not None and check.values is not None:
        from onnx2nn.report.charts import histograms as made

        for name, item in made(check.values, "histogram"):
            histograms.append((name, f"histogram{len(histograms)}"))
            items[histograms[-1][1]] = item
    if root is not None:
        from onnx2nn.report.charts import cost_chart

        if (chart := cost_chart(root, "cost")) is not None:
            items["cost"] = chart
    scripts = [_bokeh_script(), _text("report.js")] if items else []
    nodes = check.nodes if check is not None else []
    page = (
        environment()
        .get_template("report.html.jinja")
        .render(
            subject=subject,
            title=Path(subject.model).name,
            version=__version__,
            verdict=_verdict(subject),
            facts=_facts(subject, root),
            check=check,
            exact=sum(1 for c in nodes if c.max_abs == 0),
            worst=sorted((c for c in nodes if not c.ok or c.max_rel), key=_badness, reverse=True)[
                :5
            ],
            root=root,
            items=items,
            data=_json(items),
            histograms=histograms,
            operators=_operators(subject.stats),
            adds_by_operator={k: _adds(f) for k, f in subject.figures.get("operators", {}).items()},
            rules=sorted(
                subject.stats.get("rules", {}).items(), key=lambda kv: (-int(kv[1]), kv[0])
            ),
            what_rules_do=_what_rules_do(),
            source=_highlighted(subject.source[: int(share * _MOST_SOURCE)]),
            source_left_out=max(0, len(subject.source) - int(share * _MOST_SOURCE)),
            commands=subject.commands,
            style=_text("report.css") + _source_style(),
            scripts=scripts,
            policy=_policy(scripts),
            most_rows=int(share * _MOST_ROWS),
        )
    )
    return str(page)


# ---- What stands in it ----


def _root(subject: Subject, share: float) -> "Block | None":
    if subject.module is None:
        return None
    from onnx2nn.report.blocks import arguments_of, blocks_of

    adds = _adds_by_block(subject.figures)
    values = subject.check.values if subject.check is not None else None
    if values is not None and not any(p.is_meta for p in subject.module.parameters()):
        from onnx2nn.tensors import to_torch

        return blocks_of(subject.module, [to_torch(v) for v in values.feed.values()], adds, share)
    return blocks_of(subject.module, arguments_of(subject.arguments), adds, share)


def _adds_by_block(figures: dict[str, Any]) -> dict[str, int]:
    """Multiply-adds of the modules that the file tells of, by path; those of all of it at ""."""
    found = {str(b["path"]): b["multiply_adds"] for b in figures.get("blocks", [])}
    found[""] = figures.get("multiply_adds")
    return {path: n for path, n in found.items() if isinstance(n, int)}


def _verdict(subject: Subject) -> tuple[str, str, str]:
    """(class, word, what it rests on)."""
    check = subject.check
    if subject.refused:
        errors = sum(d.get("severity") == "error" for d in subject.diagnostics)
        return "wrong", "Does not convert", counted(errors, "error")
    why = subject.skipped or (check.skipped if check is not None else None)
    if check is None or why is not None:
        return "unknown", "Not checked", why or "not asked for"
    if check.ok:
        count = counted(len(check.outputs), "output")
        nodes = f", {counted(len(check.nodes), 'node')} one by one" if check.nodes else ""
        return "right", "Right", f"{count}{nodes}, against {check.oracle}"
    return "wrong", "Wrong", check.error or f"against {check.oracle}"


def _facts(subject: Subject, root: "Block | None") -> list[tuple[str, str]]:
    """The figures at the top."""
    stats = subject.stats
    before, after = stats.get("nodes_before"), stats.get("nodes_after")
    facts = []
    if root is not None:
        facts.append(("parameters", _count(root.parameters)))
    if (weights := stats.get("weight_bytes")) is not None:
        facts.append(("weights", _bytes(weights)))
    if adds := _adds(subject.figures):
        facts.append(("multiply-adds", adds))
    if before is not None and after is not None:
        same = before == after
        facts.append(("operators", f"{before:,}" if same else f"{before:,} → {after:,}"))
    opsets = ", ".join(f"{d + ' ' if d else ''}{v}" for d, v in stats.get("opsets", {}).items())
    if opsets:
        facts.append(("opset", opsets))
    if stats.get("producer"):
        facts.append(("producer", str(stats["producer"])))
    if subject.check is not None:
        facts.append(("checked in", f"{subject.check.seconds:.1f} s"))
    return facts


def _adds(figures: dict[str, Any]) -> str:
    """Multiply-adds of a model or of an operator; nothing where there are none."""
    known, all_of_it = figures.get("multiply_adds_at_least"), figures.get("multiply_adds")
    if not known:
        return ""
    least = _count(known) if isinstance(known, int) else str(known)
    return f"at least {least}" if all_of_it is None else least


def _operators(stats: dict[str, Any]) -> list[tuple[str, int, int | None]]:
    """(operator, nodes before, nodes after), the most frequent first; None where only one is known."""
    before = stats.get("op_types_before") or stats.get("op_types") or {}
    after = stats.get("op_types_after")
    rows = [
        (str(k), int(before.get(k, 0)), None if after is None else int(after.get(k, 0)))
        for k in {*before, *(after or {})}
    ]
    return sorted(rows, key=lambda r: (-max(r[1], r[2] or 0), r[0]))


def _what_rules_do() -> dict[str, str]:
    from onnx2nn.core import native

    # The one that nobody can switch off is not among them.
    return {**native().simplify_rules(), "remove-dead": "what nothing reads any more is removed"}


def _badness(c: Any) -> tuple[bool, float]:
    return not c.ok, c.max_rel or 0.0


# ---- Text ----


def _count(n: int) -> str:
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return str(n)


def _bytes(n: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1024
    return ""


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.2e}"


def _dims(shape: Any) -> str:
    return (
        "" if shape is None else "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"
    )


def _highlighted(source: str) -> Any:
    """The source in colours. Pygments escapes it."""
    from markupsafe import Markup
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    if not source:
        return ""
    formatter = HtmlFormatter(nowrap=True)
    return Markup(highlight(source, PythonLexer(), formatter))


@functools.cache
def _source_style() -> str:
    from pygments.formatters import HtmlFormatter

    light = HtmlFormatter(style="default").get_style_defs(".source")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".source")
    return f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n"


def _json(value: Any) -> str:
    """JSON that no text in it can end the element of."""
    text = json.dumps(value, separators=(",", ":"), default=_plain)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _plain(value: Any) -> Any:
    """Numbers of numpy as JSON takes them."""
    return value.item()


# ---- The parts of the page ----


@functools.cache
def environment() -> Any:
    """Templates, in which every value is escaped. ImportError without Jinja."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_legible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(count=_count, counted=counted, bytes=_bytes, number=_number, dims=_dims)
    return made


def _legible(value: Any) -> Any:
    """Text of a model at a length and in an order that people read; what is markup of ours stays."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return in_order(value[:_MOST_TEXT] + "…" if len(value) > _MOST_TEXT else value)


@functools.cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


@functools.cache
def _bokeh_script() -> str:
    import bokeh

    folder = Path(bokeh.__file__).parent / "server" / "static" / "js"
    return (folder / "bokeh.min.js").read_text(encoding="utf-8").replace("</script", "<\\/script")


def _policy(scripts: list[str]) -> str:
    """What the browser may do with the page: run these scripts, and load nothing."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
