"""What the tests of the page share: small runs with hostile names, their pages, and a page in headless Chromium."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from msgspec.structs import asdict
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from bench.analysis import stats
from bench.analysis.frame import frame
from bench.report.figures import Drawn
from bench.report.page import write_page
from bench.report.write import all_tables
from bench.store.folder import Run
from bench.store.records import Case, Record, Status

LABEL = 'mb1ic8ih12oc8oh12kh3ph1n"{}"'
SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'
CLOSING, QUOTES = "</script></td></table><b>bold", 'it\'s a "backend" & {{ 7 * 7 }} <i>'
HOSTILE = SCRIPT, IMAGE, CLOSING, QUOTES
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def timed(backend: str, layer: str, ms: float, count: int = 1, workload: str = "net") -> Record:
    """A right case of eight turns of nearly the same time."""
    turns_s = [1e-3 * ms * (1 + 0.001 * i) for i in range(8)]
    case = Case(workload, layer, LABEL.format(len(layer)), count, backend, 1)
    return Record(
        case, "ok", environment_id="e", mode="planned", algorithm=backend, error=1e-7, error_over_bound=0.1,
        samples_s=turns_s, turns_s=turns_s, median_s=stats.median(turns_s), iqr_s=stats.iqr(turns_s),
        compile_s=0.0, prepare_s=0.0, gflops_effective=1.0,
    )  # fmt: skip


def failed(backend: str, layer: str, reason: str, status: Status = "crashed", workload: str = "net") -> Record:
    return Record(Case(workload, layer, LABEL.format(len(layer)), 1, backend, 1), status, reason, "e")


def make_page(folder: Path, records: list[Record]) -> Path:
    config = {"command": f"cmd {SCRIPT}", "seed": 0, "cases": [asdict(record.case) for record in records]}
    facts = {
        "id": "e",
        "cpu": f"a cpu {IMAGE}",
        "cores": 2,
        "date": "today",
        "commit": CLOSING,
        "caches": {SCRIPT: "1"},
    }
    run = Run.create(folder / "run", config, facts)
    with run.writing() as journal:
        for record in records:
            journal.append(record)
    figures = folder / "out" / "figures"
    figures.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(figures / "ladder.png")
    drawn = Drawn("ladder", "ladder", "", f"a ladder {IMAGE}", Figure())
    table = frame(run.records(), run.cases)
    write_page(run, table, all_tables(table), folder / "out" / "report.html", [f"figure {SCRIPT}: none"], [drawn])
    return folder / "out" / "report.html"


def started(require: bool, profile: Path) -> Iterator[Chrome]:
    """Chromium; the test is skipped, or fails if ``require`` is set, where it is not installed."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = pytest.fail if require else pytest.skip
        missing("no chromium or no chromedriver; install Debian's packages chromium and chromium-driver")
    options = ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = Chrome(options, Service(driver))
    yield window
    window.quit()


def show(window: Chrome, page: Path, width: int = 1280) -> Chrome:
    """Load the page and wait for its tables and charts."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    window.get(page.as_uri())
    until(lambda: bool(window.execute_script("return 'ready' in document.documentElement.dataset")))
    wanted = len(window.find_elements(By.CSS_SELECTOR, "table.display"))
    assert len(window.find_elements(By.CSS_SELECTOR, ".dt-container")) == wanted
    return window


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what the page does by and by."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the page did not come to this in time"
        time.sleep(0.05)


def console(window: Chrome) -> list[Any]:
    """What the page complained of since the last look."""
    return list(window.get_log("browser"))  # type: ignore[no-untyped-call]


def click(window: Chrome, element: Any) -> None:
    window.execute_script("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
    element.click()
