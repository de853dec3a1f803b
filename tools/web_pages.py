"""Open the page of tools/web.sh in a real Chromium, give it models, and say what it shows.

    python tools/web_pages.py DIST JOBS.json [--offline]
    python tools/web_pages.py DIST --pictures FOLDER MODEL...

It runs in an environment with `selenium`, beside Debian's `chromium` and `chromium-driver`. JOBS is a list of objects:
"files" (paths that are chosen), "then" (more, for when the page asks), "cancel" (whether to stop at once),
"access" (whether to look at each view by the keyboard, for its contrast and names) and "downloads" (a folder for all
that is offered). One line of JSON for each. With --offline the page is opened without its server. With --pictures, screenshots of each
model at three widths, light and dark, go to FOLDER.
"""

import argparse
import functools
import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any

from chromium import chromium, resize
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

_PATIENCE_S = 240
_VIEWS = ("source", "modules", "operators", "messages")
_WIDTHS = {"phone": (390, 844), "tablet": (820, 1180), "desk": (1400, 900)}
_STATE = """
const shown = (id) => !document.getElementById(id).hidden;
const text = (id) => document.getElementById(id).innerText;
return {
  result: shown('result'), working: shown('working'), title: document.title,
  message: shown('message') ? text('message') : '',
  name: text('name'), verdict: text('verdict'),
  panels: Object.fromEntries(['source', 'modules', 'operators', 'messages'].map(
    (view) => [view, document.getElementById('panel-' + view).textContent])),
  downloads: [...document.querySelectorAll('#downloads a')].map((a) => a.download),
  overflow: Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth),
  requests: performance.getEntriesByType('resource').map((r) => r.name),
  ran: window.ran ?? null,
  images: document.querySelectorAll('img').length,
  scripts: document.scripts.length,
  heap: Number(document.getElementById('result').dataset.heap ?? 0),
  ms: Number(document.getElementById('result').dataset.ms ?? 0),
};
"""
# The lowest contrast of text on the page, and what has it; elements that have no name.
_ACCESS = """
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (c) => {
  const [r, g, b] = c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c;
  }
  return [255, 255, 255];
};
let lowest = [Infinity, ''];
for (const e of document.body.querySelectorAll('*')) {
  const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  if (!says || e.closest('noscript') || !e.checkVisibility()) continue;
  const [a, b] = [light(numbers(getComputedStyle(e).color)), light(ground(e))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < lowest[0]) lowest = [ratio, e.className + ' ' + e.textContent.slice(0, 40)];
}
const nameless = [...document.querySelectorAll('button, input, a, progress, table, [role]')].filter((e) =>
  e.checkVisibility() && !e.textContent.trim() && !e.labels?.length && !e.ariaLabel &&
  !e.getAttribute('aria-labelledby') && e.childElementCount > 0);
return { contrast: lowest[0], faint: lowest[1], nameless: nameless.map((e) => e.outerHTML.slice(0, 80)) };
"""
# What the page keeps on disk: sizes by the names of the files.
_KEPT = """
const done = arguments[0];
(async () => {
  const sizes = {};
  for await (const folder of (await navigator.storage.getDirectory()).values())
    for await (const file of folder.values()) sizes[file.name] = (await file.getFile()).size;
  return sizes;
})().then(done, (error) => done(String(error)));
"""
_DONE = """
const hidden = (id) => document.getElementById(id).hidden;
return hidden('working') && (!hidden('result') || !hidden('message'));
"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *_: Any) -> None:
        """Nothing: what is printed is JSON."""


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    """A server of the folder, on a port that is free."""
    handler = functools.partial(_Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def choose(driver: Any, files: list[str]) -> None:
    """Give the page files, and wait until it is done with them."""
    driver.find_element("id", "files").send_keys("\n".join(files))
    WebDriverWait(driver, _PATIENCE_S, 0.1).until(lambda d: d.execute_script(_DONE))


def download(driver: Any, folder: Path) -> None:
    """Take all that is offered."""
    folder.mkdir(parents=True, exist_ok=True)
    behaviour = {"behavior": "allow", "downloadPath": str(folder.resolve())}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    for button in driver.find_elements("id", "make-pt"):
        driver.execute_script("arguments[0].click()", button)
        WebDriverWait(driver, _PATIENCE_S, 0.1).until(lambda d: d.execute_script(_DONE))
    for link in driver.find_elements("css selector", "#downloads a"):
        file = folder / link.get_attribute("download")
        size = int(link.get_attribute("data-size"))
        driver.execute_script("arguments[0].click()", link)
        WebDriverWait(driver, _PATIENCE_S, 0.05).until(
            lambda _, file=file, size=size: file.exists() and file.stat().st_size == size
        )


def access(driver: Any, view: str) -> dict[str, Any]:
    """How readable a view is, in the worse of light and dark; it is chosen by the keyboard."""
    tabs = driver.find_elements("css selector", "[role=tab]")
    tabs[0].click()
    for _ in range(_VIEWS.index(view)):
        driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    found: list[dict[str, Any]] = []
    for scheme in ("dark", "light"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        found.append(driver.execute_script(_ACCESS))
    worse = min(found, key=lambda f: float(f["contrast"]))
    shown = driver.execute_script(
        "return [...document.querySelectorAll('[role=tabpanel]')].filter((p) => !p.hidden).map((p) => p.id)"
    )
    return {**worse, "shown": shown, "focus": driver.switch_to.active_element.text}


def look_at(driver: Any, job: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one model."""
    if job.get("cancel"):
        driver.find_element("id", "files").send_keys("\n".join(job["files"]))
        driver.execute_script("document.getElementById('cancel').click()")
    else:
        choose(driver, job["files"])
    if "then" in job:
        choose(driver, job["then"])
    if "downloads" in job:
        download(driver, Path(job["downloads"]))
    found: dict[str, Any] = driver.execute_script(_STATE)
    found["kept"] = driver.execute_async_script(_KEPT)
    if job.get("access"):
        found["access"] = [access(driver, view) for view in _VIEWS]
    found["log"] = [entry["message"] for entry in driver.get_log("browser")]
    return found


def pictures(driver: Any, address: str, models: list[Path], folder: Path) -> None:
    """Screenshots of each view of each model, at three widths, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for where, (width, height) in _WIDTHS.items():
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            resize(driver, width, height)
            driver.get(address)
            driver.save_screenshot(str(folder / f"empty-{where}-{scheme}.png"))
            for model in models:
                choose(driver, [str(model.resolve())])
                for view in _VIEWS:
                    driver.execute_script(f"document.getElementById('tab-{view}').click()")
                    driver.execute_script("scrollTo(0, 0); document.activeElement.blur()")
                    time.sleep(0.2)  # until it is drawn
                    name = f"{model.stem}-{view}-{where}-{scheme}.png"
                    driver.save_screenshot(str(folder / name))


def open_page(driver: Any, dist: Path, *, offline: bool) -> tuple[str, Any]:
    """Open the page; offline: once more, when its server is gone."""
    server = serve(dist)
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    driver.get(address)
    if offline:
        driver.execute_async_script("navigator.serviceWorker.ready.then(() => arguments[0]())")
        server.shutdown()
        server.server_close()
        driver.get(address)
    return address, server


def main() -> None:
    """Look at some models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("dist", type=Path)
    parser.add_argument("what", nargs="+", type=Path, help="JOBS.json, or models for pictures")
    parser.add_argument("--offline", action="store_true", help="open the page from its cache")
    parser.add_argument("--pictures", type=Path)
    a = parser.parse_args()
    driver = chromium(*_WIDTHS["desk"])
    try:
        address, _ = open_page(driver, a.dist, offline=a.offline)
        if a.pictures:
            pictures(driver, address, a.what, a.pictures)
            return
        for job in json.loads(a.what[0].read_text()):
            print(json.dumps(look_at(driver, job)), flush=True)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
