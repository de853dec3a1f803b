"""Put simplifiers side by side: what simplify_corpus.py wrote for each, one row a model.

usage: simplifiers.py ONNXSIM.jsonl ONNXSLIM.jsonl OURS.jsonl

Prints how many models each got right, of those with an answer; the nodes that each removed from the models
that all three get right; the wall time and the peak memory; and the models on which ours leaves over 2 % more
nodes than one of the others, whose reasons docs/status.md gives.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

Rows = dict[str, dict[str, Any]]
MARGIN = 0.02


def read(path: Path) -> Rows:
    """The rows of one tool, by the model's path; the last one counts where there are several."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["path"]: row for row in rows}


def summary(name: str, rows: Rows, common: list[str]) -> str:
    """One line about a tool. Models that could not be run before have no answer."""
    status = Counter(row["status"] for row in rows.values())
    answered = sum(status.values()) - status["no-oracle"]
    before = sum(rows[path]["nodes"] for path in common)
    after = sum(rows[path]["after"] for path in common)
    cut = 100 * (1 - after / before) if before else 0.0
    seconds = sum(row.get("s", 0.0) for row in rows.values())
    peak = max((row.get("peak_mb", 0.0) for row in rows.values()), default=0.0)
    others = ", ".join(f"{n} {s}" for s, n in sorted(status.items()) if s != "ok")
    return (
        f"{name:9} {status['ok']} of {answered} right ({others}); removed {cut:.1f} % of {before} nodes; "
        f"{seconds:.1f} s; at most {peak:.0f} MB"
    )


def behind(ours: Rows, others: dict[str, Rows]) -> list[str]:
    """The models on which ours leaves more than `MARGIN` of the nodes more than another that is right."""
    found = []
    for path, row in ours.items():
        right = {
            name: rows[path]["after"]
            for name, rows in others.items()
            if rows.get(path, {}).get("status") in ("ok", "no-oracle")
        }
        if not right or "after" not in row:
            continue
        name, best = min(right.items(), key=lambda item: item[1])
        if row["after"] - best > MARGIN * row["nodes"]:
            found.append(
                (row["after"] - best, f"{row['nodes']:6} {row['after']:6} {best:6} {name:9} {path}")
            )
    return [line for _, line in sorted(found, key=lambda pair: -pair[0])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("onnxsim", "onnxslim", "ours"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    tools = {
        "onnxsim": read(args.onnxsim),
        "OnnxSlim": read(args.onnxslim),
        "onnx2nn": read(args.ours),
    }
    common = [
        path
        for path in tools["onnx2nn"]
        if all(t.get(path, {}).get("status") == "ok" for t in tools.values())
    ]
    print(f"{len(common)} models that all three get right")
    for name, rows in tools.items():
        print(summary(name, rows, common))
    ours = tools.pop("onnx2nn")
    lines = behind(ours, tools)
    print(f"{len(lines)} models on which ours is behind: nodes before, ours, the better one")
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
