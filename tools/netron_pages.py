"""Open files in Netron, in a real Chromium, and say what is on the page.

    python tools/netron_pages.py FILE... [--pictures FOLDER]

It runs in an environment with `netron` and `selenium`, beside Debian's `chromium` and `chromium-driver`. Each
file is served by Netron on this machine, and the browser resolves no other name. One line of JSON is printed
a file: Netron's message, if it has one, and the nodes as they are drawn, those inside of others too, each with
what the sidebar says once it is clicked. With --pictures a screenshot of x.SUFFIX goes to FOLDER/SUFFIX.png.
"""

import argparse
import contextlib
import io
import json
import socket
import time
from pathlib import Path
from typing import Any

import netron
from chromium import chromium, resize
from selenium.webdriver.support.ui import WebDriverWait

_PATIENCE_S = 60
_SIZE = 1000, 1000
_LEAST_HEIGHT, _MOST_HEIGHT = 600, 1400

# What the header of each drawn node says: its title, then buttons, of which + opens a graph in
# place, and ƒ shows what a function holds. Nothing while the graph is laid out anew beside the old one.
_HEADERS = """
return document.querySelectorAll('#origin > #nodes').length !== 1 ? [] : [...document.querySelectorAll('g.graph-node')].map(
  (node) => [...node.querySelectorAll(':scope > g.node-item > text')].map((t) => t.textContent));
"""
# Clicks the title of a node, or the button of that text; nothing where the page is being drawn anew.
_CLICK = """
const [at, text] = arguments;
const node = document.querySelectorAll('g.graph-node')[at];
node?.scrollIntoView({block: 'nearest', inline: 'center'});
[...node?.querySelectorAll(':scope > g.node-item') ?? []]
  .find((item) => text === '' || item.querySelector('text')?.textContent === text)
  ?.dispatchEvent(new MouseEvent('click', {bubbles: true}));
"""
# The fields of each section of the sidebar. A value is a line of text, or the name of a weight in bold.
_SIDEBAR = """
const found = {};
let section = 'Node';
for (const e of document.querySelectorAll('#sidebar-content .sidebar-section, #sidebar-content .sidebar-item')) {
  if (e.classList.contains('sidebar-section')) { section = e.textContent; continue; }
  const values = [...e.querySelectorAll('.sidebar-item-value-line, .sidebar-item-value-line-link, b')]
    .filter((v) => !v.querySelector('b')).map((v) => v.textContent);
  (found[section] ??= []).push([e.querySelector('input')?.value ?? '', values]);
}
return found;
"""
_BACK = "document.querySelector('.toolbar-path-back-button').click()"


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _settle(driver: Any) -> set[str]:
    """Wait until Netron shows something; the classes of the page then."""

    def classes(d: Any) -> set[str]:
        return set(d.execute_script("return document.body.className").split())

    WebDriverWait(driver, _PATIENCE_S, 0.05).until(
        lambda d: not {"welcome", "spinner"} & classes(d)
    )
    return classes(driver)


def _headers(driver: Any) -> list[list[str]]:
    """The headers of all nodes, once nothing moves any more."""
    seen: list[list[list[str]]] = []

    def is_still(d: Any) -> bool:
        seen.append(d.execute_script(_HEADERS))
        return len(seen) > 3 and seen[-1] == seen[-2] == seen[-3] and bool(seen[-1])

    WebDriverWait(driver, _PATIENCE_S, 0.1).until(is_still)
    return seen[-1]


def _open_graphs(driver: Any) -> None:
    """Open all graphs that stand inside of nodes."""
    while closed := [k for k, header in enumerate(_headers(driver)) if "+" in header]:
        driver.execute_script(_CLICK, closed[0], "+")


def _nodes(driver: Any) -> list[dict[str, Any]]:
    """What is drawn of a graph, and of the functions in it."""
    _open_graphs(driver)
    headers = _headers(driver)
    nodes = []
    for k, header in enumerate(headers):
        driver.execute_script(_CLICK, k, "")
        nodes.append({"header": header, **driver.execute_script(_SIDEBAR)})
    for k, header in enumerate(headers):
        if "ƒ" in header:
            driver.execute_script(_CLICK, k, "ƒ")
            nodes[k]["function"] = _nodes(driver)
            driver.execute_script(_BACK)
            assert _headers(driver) == headers
    return nodes


def look_at(driver: Any, file: Path, picture: Path | None) -> dict[str, Any]:
    """What Netron shows of a file."""
    address = ("127.0.0.1", _free_port())
    with contextlib.redirect_stdout(io.StringIO()):
        netron.start(str(file), address, browse=False)
    try:
        url = f"http://{address[0]}:{address[1]}/"
        driver.get(url + "favicon.ico")
        driver.add_cookie({"name": "consent", "value": "1"})  # it asks about cookies else
        driver.get(url)
        message, nodes = "", []
        if "default" in _settle(driver):
            nodes = _nodes(driver)
            # The picture has the properties of the node with the most weights beside the graph.
            most = max(range(len(nodes)), key=lambda k: len(nodes[k].get("Inputs", [])), default=0)
            driver.execute_script(_CLICK, most, "")
        else:
            message = driver.execute_script(
                "return document.getElementById('message-text').textContent"
            )
        if picture is not None:
            height = driver.execute_script("return document.getElementById('canvas').clientHeight")
            resize(driver, _SIZE[0], min(max(height, _LEAST_HEIGHT), _MOST_HEIGHT))
            time.sleep(1)  # the sidebar slides in
            driver.save_screenshot(str(picture))
        return {"file": file.name, "message": message, "nodes": nodes}
    finally:
        with contextlib.redirect_stdout(io.StringIO()):
            netron.stop(address)


def main() -> None:
    """Look at each file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--pictures", type=Path)
    a = parser.parse_args()
    driver = chromium(*_SIZE)
    try:
        for file in a.files:
            picture = a.pictures and a.pictures / f"{file.name.partition('.')[2]}.png"
            print(json.dumps(look_at(driver, file, picture)), flush=True)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
