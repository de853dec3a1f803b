"""The charts of a report, as documents that BokehJS draws."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx2nn.errors import in_order

if TYPE_CHECKING:
    from onnx2nn.check.compare import Comparison
    from onnx2nn.check.result import Values
    from onnx2nn.report.blocks import Block

__all__ = ["cost_chart", "depth_chart", "histograms"]

_EXACT = 1e-17  # where equal numbers are drawn on a logarithmic axis
_MOST_POINTS = 2500
_MOST_OUTPUTS = 6
_MOST_NAME = 120
_MOST_ELEMENTS = 1 << 20
_BINS = 48
_LARGEST = 1e300  # of a number in a chart: a range that is wider than a double holds has no bins
_LEAST_SPAN = 1e-12  # of a histogram, in its numbers: bins are not narrower than doubles are
_NEARLY_ALL = 0.9
_GREY, _BLUE, _ORANGE, _RED = "#7d8590", "#2f81f7", "#e8862e", "#e5484d"


def _figure(height: int, **options: Any) -> Any:
    """An empty chart in colours that do on light and dark paper."""
    from bokeh.models import InlineStyleSheet
    from bokeh.plotting import figure

    chart = figure(
        height=height,
        sizing_mode="stretch_width",
        toolbar_location=None,
        tools="",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        stylesheets=[InlineStyleSheet(css=":host { touch-action: pan-y; }")],
        **options,
    )
    for axis in chart.axis:
        axis.axis_line_color = axis.major_tick_line_color = _GREY
        axis.minor_tick_line_color = None
        axis.major_label_text_color = axis.axis_label_text_color = _GREY
        axis.axis_label_text_font_style = "normal"
    chart.grid.grid_line_color, chart.grid.grid_line_alpha = _GREY, 0.18
    chart.xgrid.grid_line_color = None
    return chart


def _legend_above(chart: Any) -> None:
    legend = chart.legend[0]
    legend.update(
        label_text_color=_GREY,
        background_fill_alpha=0,
        border_line_color=None,
        orientation="horizontal",
        padding=0,
        margin=0,
        spacing=16,
    )
    chart.add_layout(legend, "above")


def _item(chart: Any, target: str) -> Any:
    from bokeh.embed import json_item

    return json_item(chart, target)


def depth_chart(
    nodes: "list[Comparison]", kinds: dict[str, str], target: str, share: float = 1.0
) -> Any:
    """Each node's largest relative difference from the oracle, in the order of the model.

    kinds: operators by the names of their outputs. share: of the nodes that are drawn at most.
    """
    from bokeh.models import ColumnDataSource, HoverTool, Label, NumeralTickFormatter

    kept = _thinned(nodes, int(share * _MOST_POINTS))
    errors = [_error(nodes[k]) for k in kept]
    source = ColumnDataSource(
        {
            "place": kept,
            "error": [max(e, _EXACT) for e in errors],
            "colour": [
                _RED if not nodes[k].ok else _GREY if e == 0 else _BLUE
                for k, e in zip(kept, errors)
            ],
            "name": [in_order(nodes[k].name[:_MOST_NAME]) for k in kept],
            "operator": [kinds.get(nodes[k].name, "") for k in kept],
            "type": [f"{nodes[k].dtype}{_dims(nodes[k].shape)}" for k in kept],
            "largest": [_number(nodes[k].max_rel) for k in kept],
            "absolute": [_number(nodes[k].max_abs) for k in kept],
            "mse": [_number(nodes[k].mse) for k in kept],
            "verdict": [
                "wrong" if not nodes[k].ok else "random" if nodes[k].random else "right"
                for k in kept
            ],
        }
    )
    top = min(_LARGEST, max([1e-6, *(e for e in errors if math.isfinite(e))]))
    chart = _figure(
        300,
        y_axis_type="log",
        y_range=(_EXACT / 3, top * 30),
        x_axis_label="node, from input to output",
        y_axis_label="largest relative difference",
    )
    points = chart.scatter("place", "error", source=source, size=7, color="colour", line_color=None)
    chart.add_tools(
        HoverTool(
            renderers=[points],
            tooltips=[
                ("value", "@name"),
                ("operator", "@operator"),
                ("type", "@type"),
                ("largest relative", "@largest"),
                ("largest absolute", "@absolute"),
                ("mean squared", "@mse"),
                ("verdict", "@verdict"),
            ],
        )
    )
    chart.xaxis.formatter = NumeralTickFormatter(format="0,0")
    chart.xaxis.ticker.update(min_interval=1)  # a node is a whole number
    wrong = [i for i, k in enumerate(kept) if not nodes[k].ok]
    at = wrong[0] if wrong else max(range(len(kept)), key=lambda i: errors[i])
    if wrong or errors[at] > 0:
        late = at > len(kept) / 2
        said = kinds.get(nodes[kept[at]].name, "")
        chart.add_layout(
            Label(
                x=kept[at],
                y=max(errors[at], _EXACT),
                text=f"{'first wrong' if wrong else 'worst'}{': ' if said else ''}{said}",
                text_align="right" if late else "left",
                text_color=_RED if wrong else _ORANGE,
                text_font_size="12px",
                x_offset=-8 if late else 8,
                y_offset=8,
            )
        )
        chart.scatter(
            [kept[at]],
            [max(errors[at], _EXACT)],
            size=14,
            fill_color=None,
            line_color=_RED if wrong else _ORANGE,
            line_width=2,
        )
    return _item(chart, target)


def _error(c: "Comparison") -> float:
    if c.max_rel is None or not math.isfinite(c.max_rel):
        return 0.0 if c.ok else 1.0
    return float(c.max_rel)


def _thinned(nodes: "list[Comparison]", most: int) -> list[int]:
    """Places of the nodes that are drawn: all, or an even choice and the worst of them."""
    if len(nodes) <= most:
        return list(range(len(nodes)))
    order = sorted(range(len(nodes)), key=lambda k: (nodes[k].ok, -_error(nodes[k])))
    even = np.linspace(0, len(nodes) - 1, most // 2).astype(int).tolist()
    return sorted({*order[: most // 2], *even})


def _number(value: float | None) -> str:
    return "" if value is None else "0" if value == 0 else f"{value:.2e}"


def _dims(shape: Any) -> str:
    return "" if shape is None else "[" + ", ".join(map(str, shape)) + "]"


def histograms(values: "Values", prefix: str) -> list[tuple[str, Any]]:
    """(name of an output, chart of its numbers on both sides), for the first outputs of numbers."""
    from bokeh.models import ColumnDataSource, HoverTool

    out: list[tuple[str, Any]] = []
    for name, want, got in zip(values.names, values.want, values.got):
        sides = [_finite(want), _finite(got)]
        if any(s is None or not s.size for s in sides):
            continue
        if len(out) == _MOST_OUTPUTS:
            break
        low, high = _range(sides)
        counts = [np.histogram(s, bins=_BINS, range=(low, high))[0] for s in sides]
        edges = np.linspace(low, high, _BINS + 1)
        source = ColumnDataSource(
            {
                "left": edges[:-1].tolist(),
                "right": edges[1:].tolist(),
                "theirs": counts[0].tolist(),
                "ours": counts[1].tolist(),
            }
        )
        chart = _figure(190, x_axis_label="value", y_axis_label="elements")
        bars = chart.quad(
            left="left",
            right="right",
            bottom=0,
            top="theirs",
            source=source,
            fill_color=_BLUE,
            fill_alpha=0.35,
            line_color=None,
            legend_label=values.oracle,
        )
        chart.step(
            x=edges.tolist(),
            y=[*counts[1].tolist(), 0],
            mode="after",
            line_color=_ORANGE,
            line_width=2,
            legend_label="onnx2nn",
        )
        chart.add_tools(
            HoverTool(
                renderers=[bars],
                tooltips=[
                    ("from", "@left{0.000e+0}"),
                    ("to", "@right{0.000e+0}"),
                    (values.oracle, "@theirs"),
                    ("onnx2nn", "@ours"),
                ],
            )
        )
        chart.y_range.start = 0
        chart.yaxis.ticker.update(min_interval=1)
        _legend_above(chart)
        out.append((name, _item(chart, f"{prefix}{len(out)}")))
    return out


def _range(sides: list[Any]) -> tuple[float, float]:
    """From the least number to the largest, or somewhat more where they are equal, or nearly."""
    low, high = float(min(s.min() for s in sides)), float(max(s.max() for s in sides))
    least = _LEAST_SPAN * max(abs(low), abs(high), 1 / _LARGEST)
    if high - low > least:
        return low, high
    more = max(least, 0.5) if low == high else least
    return low - more, high + more


def _finite(value: Any) -> Any:
    """The numbers of an array, a sample of them where there are many; None where it has none.

    What is not finite, or as good as that, is left out.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        return None
    flat = value.reshape(-1)
    flat = flat[:: max(1, flat.size // _MOST_ELEMENTS)].astype(np.float64)
    return flat[np.abs(flat) < _LARGEST]


def _most(root: "Block") -> "Block | None":
    """The one block with groups of its own that holds nearly all parameters."""
    for group in root.groups:
        if len(group.blocks) == 1 and group.blocks[0].groups:
            block = group.blocks[0]
            if block.parameters >= _NEARLY_ALL * root.parameters and block.parameters:
                return block
    return None


def cost_chart(root: "Block", target: str) -> Any:
    """Shares of parameters and multiply-adds by the root's modules, or those of what is most of it.

    None where there is nothing to compare.
    """
    from bokeh.models import ColumnDataSource, HoverTool

    while (inner := _most(root)) is not None:
        root = inner
    rows = [
        (
            g.title,
            g.class_name,
            sum(b.parameters for b in g.blocks),
            sum(b.multiply_adds for b in g.blocks),
        )
        for g in root.groups
        if g.blocks
    ]
    rows = [r for r in rows if r[2] or r[3]][:24]
    if len(rows) < 2:
        return None
    rows.reverse()  # the first is drawn at the bottom
    titles = [r[0] for r in rows]
    all_parameters = max(1, sum(r[2] for r in rows))
    all_adds = max(1, sum(r[3] for r in rows))
    source = ColumnDataSource(
        {
            "title": titles,
            "class": [r[1] for r in rows],
            "parameters": [100 * r[2] / all_parameters for r in rows],
            "adds": [100 * r[3] / all_adds for r in rows],
            "parameters_n": [f"{r[2]:,}" for r in rows],
            "adds_n": [f"{r[3]:,}" for r in rows],
        }
    )
    from bokeh.transform import dodge

    chart = _figure(90 + 30 * len(rows), y_range=titles, x_axis_label="share of the whole, %")
    bars = [
        chart.hbar(
            y=dodge("title", offset, range=chart.y_range),
            right=column,
            height=0.32,
            source=source,
            fill_color=colour,
            line_color=None,
            legend_label=label,
        )
        for column, label, colour, offset in (
            ("parameters", "parameters", _BLUE, 0.18),
            ("adds", "multiply-adds", _ORANGE, -0.18),
        )
        if any(source.data[column])
    ]
    chart.add_tools(
        HoverTool(
            renderers=bars,
            tooltips=[
                ("module", "@title"),
                ("class", "@class"),
                ("parameters", "@parameters_n"),
                ("multiply-adds", "@adds_n"),
            ],
        )
    )
    chart.x_range.start = 0
    _legend_above(chart)
    return _item(chart, target)
