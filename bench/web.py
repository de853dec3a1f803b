"""The page in the browser against the native program: time and memory on models of several sizes.

    PYTHONPATH=$(echo .cache/environments/browser-*/lib/python*/site-packages) .venv/bin/python bench/web.py \\
        DIST NATIVE [--megabytes 10,100,300,1000] [--models FILE...]

It needs selenium, numpy and onnx, and Debian's Chromium; DIST is what tools/web.sh built and NATIVE the native program of a
release build or of the wheel. The models are chains of blocks, each a product that PyTorch stores the other way
round and one that it stores as it is. Both sides make source, safetensors and the simplified model, then TorchScript (the last columns).
Memory of the page is the proportional set size of all processes of the browser, at its highest, above what it was before;
the heap of WebAssembly is of addresses, of which only those count that are written to.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from chromium import chromium
from selenium.webdriver.support.ui import WebDriverWait
from web_pages import choose, open_page

_WIDTH = 1024
_MIB = 2**20


def make_model(path: Path, megabytes: float) -> None:
    """A chain of blocks with about so many megabytes of weights."""
    rng = np.random.default_rng(0)
    blocks = max(1, round(megabytes * 1e6 / (8 * _WIDTH * _WIDTH)))
    nodes, weights, at = [], [], "x"
    for i in range(blocks):
        for name, form in ((f"blocks.{i}.in", "MatMul"), (f"blocks.{i}.out", "Gemm")):
            data = rng.standard_normal((_WIDTH, _WIDTH), "f").tobytes()
            shape = [_WIDTH, _WIDTH]
            key = f"{name}.weight"
            weights.append(helper.make_tensor(key, TensorProto.FLOAT, shape, data, raw=True))
            more = {"transB": 1} if form == "Gemm" else {}
            nodes.append(helper.make_node(form, [at, key], [f"{name}.y"], name=name, **more))
            at = f"{name}.y"
        nodes.append(helper.make_node("Relu", [at], [f"blocks.{i}"], name=f"blocks.{i}.relu"))
        at = f"blocks.{i}"
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", _WIDTH]) for n in ("x", at)]
    graph = helper.make_graph(nodes, "chain", ports[:1], ports[1:], weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)


def run_native(program: Path, words: list[str]) -> tuple[float, float]:
    """Seconds, and the highest memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([program, *words, "-q", "--force"])
    highest = 0
    # Not by wait4, which counts what the forked Python had.
    while process.poll() is None:
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                highest = max(highest, int(line.split()[1]))
        time.sleep(0.002)
    assert process.returncode == 0, words
    return time.perf_counter() - start, highest / 1024


def family(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    out = [root]
    for process in out:
        out += [child for child, parent in parents.items() if parent == process]
    return out


def memory(root: int) -> float:
    """Proportional set size of a family of processes, in MiB."""
    total = 0
    for process in family(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


class Highest(threading.Thread):
    """Follows the memory of a family of processes."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._done = threading.Event()
        self.before = self.most = memory(root)

    def run(self) -> None:
        while not self._done.wait(0.05):
            self.most = max(self.most, memory(self._root))

    def finish(self) -> float:
        """What it took at most, above what there was."""
        self._done.set()
        self.join()
        return self.most - self.before


def run_page(driver: Any, model: Path) -> dict[str, float]:
    """Seconds as the page counts them, memory above that before, and the heap, in MiB."""
    follower = Highest(driver.service.process.pid)
    follower.start()
    choose(driver, [str(model)])
    found = driver.execute_script("return {...document.getElementById('result').dataset}")
    out = {"seconds": int(found["ms"]) / 1000, "memory": follower.most - follower.before}
    driver.find_element("id", "make-pt").click()
    WebDriverWait(driver, 240, 0.1).until(
        lambda d: d.execute_script("return document.getElementById('working').hidden")
    )
    again = driver.execute_script("return {...document.getElementById('result').dataset}")
    out |= {"script_seconds": int(again["ms"]) / 1000, "script_memory": follower.finish()}
    return out | {"heap": int(found["heap"]) / _MIB}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("dist", type=Path)
    parser.add_argument("native", type=Path)
    parser.add_argument("--megabytes", default="10,100,300,1000")
    parser.add_argument("--models", nargs="*", type=Path, default=[])
    a = parser.parse_args()
    heads = ("MiB", "native s", "MiB", "page s", "MiB", "of size", "heap", "pt: s", "page s", "MiB")
    print(f"{'model':22}" + "".join(f"{head:>9}" for head in heads))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [*a.models]
        for megabytes in a.megabytes.split(",") if a.megabytes else []:
            models.append(folder / f"chain-{megabytes}MB.onnx")
            make_model(models[-1], float(megabytes))
        for model in models:
            size = model.stat().st_size / _MIB
            program = a.native.resolve()
            source = run_native(program, ["convert", str(model), "-o", str(folder / "net.py")])
            small = run_native(program, ["simplify", str(model), str(folder / "small.onnx")])
            script = run_native(program, ["convert", str(model), "-o", str(folder / "net.pt")])
            driver = chromium(1400, 900)
            try:
                open_page(driver, a.dist, offline=False)
                page = run_page(driver, model.resolve())
            finally:
                driver.quit()
            row = (
                f"{size:9.0f}{source[0] + small[0]:9.2f}{max(source[1], small[1]):9.0f}"
                f"{page['seconds']:9.2f}{page['memory']:9.0f}{page['memory'] / size:9.2f}"
                f"{page['heap']:9.0f}{script[0]:9.2f}{page['script_seconds']:9.2f}"
                f"{page['script_memory']:9.0f}"
            )
            print(f"{model.name[:21]:22}{row}", flush=True)


if __name__ == "__main__":
    main()
