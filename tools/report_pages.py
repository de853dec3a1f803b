"""Open a report of `onnx2nn --report` in a real Chromium and say what is on the page.

    python tools/report_pages.py FILE [--width N] [--pictures FOLDER]

It runs in an environment with `selenium`, beside Debian's `chromium` and `chromium-driver`. One line of JSON: what the
page drew, asked for and complained of. With --pictures, screenshots at the width of a desk and of a
phone, light and dark, go to FOLDER.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from chromium import chromium, resize
from selenium.webdriver.support.ui import WebDriverWait

_PATIENCE_S = 30
_HEIGHT = 900
_MOST_HEIGHT = 1700  # of a picture
_FIND = """
const block = document.querySelector('.tree .inside details');
block?.querySelector('summary').click();
return {
  charts: Number(document.documentElement.dataset.drawn ?? 0),
  requests: performance.getEntriesByType('resource').map((r) => r.name),
  overflow: Math.max(0, document.documentElement.scrollWidth - document.documentElement.clientWidth),
  opened: block?.open ?? null,
  ran: window.ran ?? null,
  images: document.querySelectorAll('img').length,
  scripts: document.scripts.length,
  text: document.body.innerText,
};
"""


def _open(driver: Any, file: Path) -> None:
    driver.get(file.resolve().as_uri())
    WebDriverWait(driver, _PATIENCE_S).until(
        lambda d: d.execute_script(
            "return !document.getElementById('charts') || document.documentElement.dataset.drawn"
        )
    )


def look_at(driver: Any, file: Path) -> dict[str, Any]:
    """What is on the page."""
    _open(driver, file)
    found: dict[str, Any] = driver.execute_script(_FIND)
    found["messages"] = [entry["message"] for entry in driver.get_log("browser")]
    return found


def pictures(driver: Any, file: Path, folder: Path) -> None:
    """Screenshots of the top of the page."""
    for where, width in (("desk", 1200), ("phone", 390)):
        for scheme in ("light", "dark"):
            media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
            resize(driver, width, _HEIGHT)
            _open(driver, file)
            driver.execute_script(
                "document.querySelector('.tree .inside details')?.toggleAttribute('open')"
            )
            height = driver.execute_script("return document.documentElement.scrollHeight")
            resize(driver, width, min(height, _MOST_HEIGHT))
            time.sleep(1)  # charts take their new size
            driver.save_screenshot(str(folder / f"{file.stem}-{where}-{scheme}.png"))


def main() -> None:
    """Look at one report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--pictures", type=Path)
    a = parser.parse_args()
    driver = chromium(a.width, _HEIGHT)
    try:
        print(json.dumps(look_at(driver, a.file)))
        if a.pictures:
            pictures(driver, a.file, a.pictures)
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
