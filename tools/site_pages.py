"""Open the pages of the built site in a real Chromium and say what is odd about them.

    python tools/site_pages.py [--site build/site/html] [--pictures FOLDER]

It runs in an environment with `selenium`, beside Debian's `chromium` and `chromium-driver`, and serves the site on this
machine alone. One line of JSON: for each page what the browser complained of, what it asked of others, and by how much
the page is wider than a phone. With --pictures, screenshots at the width of a desk and of a phone go to FOLDER.
"""

import argparse
import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chromium import chromium, resize

ROOT = Path(__file__).parents[1]
_PHONE, _DESK, _HEIGHT = 390, 1280, 900
_SHOWN = {
    "start": ("index.html", "light"),
    "tutorial": ("docs/tutorials/convert.html", "dark"),
    "reference": ("docs/reference/command-line.html", "light"),
}
_OVERFLOW = """
return Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth)
"""
_ASKED = "return performance.getEntriesByType('resource').map((r) => r.name)"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served meanwhile."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def look_at(driver: Any, address: str, page: str) -> dict[str, Any]:
    """What is odd about a page at the width of a phone."""
    driver.get(address + page)
    asked = driver.execute_script(_ASKED)
    messages = [e["message"] for e in driver.get_log("browser") if e["level"] != "INFO"]
    found = {
        "overflow": driver.execute_script(_OVERFLOW),
        "elsewhere": [a for a in asked if not a.startswith((address, "data:", "blob:"))],
        "messages": messages,
    }
    return {name: value for name, value in found.items() if value}


def pictures(driver: Any, address: str, folder: Path) -> None:
    """Screenshots of the tops of some pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (page, scheme) in _SHOWN.items():
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        for where, width in (("desk", _DESK), ("phone", _PHONE)):
            resize(driver, width, _HEIGHT)
            driver.get(address + page)
            driver.execute_script("localStorage.clear()")  # the scheme that it was left in
            driver.get(address + page)
            time.sleep(0.5)  # scripts put the page in order
            driver.save_screenshot(str(folder / f"{name}-{where}-{scheme}.png"))


def main() -> None:
    """Look at the site."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--site", type=Path, default=ROOT / "build" / "site" / "html")
    parser.add_argument("--pictures", type=Path)
    a = parser.parse_args()
    pages = sorted(str(p.relative_to(a.site)) for p in a.site.rglob("*.html"))
    driver = chromium(_PHONE, _HEIGHT)
    try:
        with served(a.site) as address:
            if a.pictures:
                pictures(driver, address, a.pictures)
            else:
                print(json.dumps({p: look_at(driver, address, p) for p in pages}))
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
