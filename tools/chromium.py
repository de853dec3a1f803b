"""Debian's Chromium, driven by selenium, without a network; imported by the scripts beside it."""

import shutil
from typing import Any

from selenium import webdriver

__all__ = ["chromium", "resize"]


def chromium(width: int, height: int, *arguments: str) -> Any:
    """A browser without a window whose page is so large, and which reaches this machine alone."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        *arguments,
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    resize(driver, width, height)
    return driver


def resize(driver: Any, width: int, height: int) -> None:
    """Give the page this size: a window would have a frame, and a least width."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
