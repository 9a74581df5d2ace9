"""One browser for every test that looks at a page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.conftest import lacking

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--window-size=1000,1400",
)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        lacking("no chromium and chromedriver here: run scripts/system-packages")
    options = ChromeOptions()
    options.binary_location = binary
    for each in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = Chrome(options=options, service=ChromeService(driver))
    made.set_page_load_timeout(120)
    try:
        made.get("about:blank")
        made.get_log("browser")  # type: ignore[no-untyped-call]  # the browser's own start page
        yield made
    finally:
        made.quit()
