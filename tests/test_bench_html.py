"""The page of a report: in headless Chromium, with names that try to break out of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import HOSTILE, IMAGE, SCRIPT, click, console, failed, make_page, show, timed, until
from msgspec.structs import replace
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from bench.analysis.frame import frame
from bench.analysis.numbers import NOTE, cell
from bench.analysis.ratios import fastest_by_network


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 layers of two backends and of a peer, whose names are times in ms; and what failed, with hostile names."""
    records = [timed(backend, f"layer{i}", ms * i) for i in range(1, 31) for backend, ms in (("auto", 1), ("jax", 2))]
    records += [timed(name, SCRIPT, 9 + i, workload=IMAGE) for i, name in enumerate(HOSTILE)]
    records += [failed(name, f"layer {name}", f"because {name}", workload=name) for name in HOSTILE]
    return make_page(tmp_path_factory.mktemp("page"), records)


@pytest.fixture
def opened(chromium: Chrome, page: Path) -> Chrome:
    return show(chromium, page)


def column(window: Chrome, section: str, name: str, which: int = 0) -> list[str]:
    """The texts of one column as shown."""
    texts = window.execute_script(
        "const table = document.querySelectorAll(`#${arguments[0]} table`)[arguments[2]];"
        "const at = [...table.tHead.rows[0].cells].findIndex(cell => cell.innerText.trim() === arguments[1]);"
        "return [...table.tBodies[0].rows].map(row => row.cells[at].innerText);",
        section, name, which,
    )  # fmt: skip
    return list(texts)


def heading(window: Chrome, section: str, name: str) -> Any:
    cells = window.find_elements(By.CSS_SELECTOR, f"#{section} table thead th")
    return next(cell for cell in cells if cell.text.strip() == name)


def test_hostile_names_show_as_text_and_run_nothing(opened: Chrome) -> None:
    body = opened.find_element(By.TAG_NAME, "body").text
    for name in HOSTILE:
        assert name in body
    assert opened.find_elements(By.CSS_SELECTOR, "main table :is(script, img, b, i)") == []
    assert column(opened, "failures", "reason", 1) == [f"because {name}" for name in HOSTILE]
    # An alert would have made these calls raise.
    assert console(opened) == []


def test_nothing_is_loaded_from_elsewhere(opened: Chrome, page: Path) -> None:
    assert opened.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
    sources = "return [...document.querySelectorAll('[src], link, object, iframe')].map(e => e.src ?? e.outerHTML)"
    assert all(source.startswith("data:image/webp;") for source in opened.execute_script(sources))
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"url\((?!data:)[^)]*|@import", text) == []
    assert "default-src 'none'" in text


def test_links_lead_to_sections_with_headings(opened: Chrome) -> None:
    links = opened.find_elements(By.CSS_SELECTOR, "nav a")
    assert len(links) >= 8
    for link in links:
        target = str(link.get_attribute("href")).partition("#")[2]
        click(opened, link)
        assert opened.current_url.endswith(f"#{target}")
        assert opened.find_element(By.CSS_SELECTOR, f"section#{target} > h2").text
    assert {link.get_dom_attribute("href") for link in opened.find_elements(By.TAG_NAME, "a")} >= {"#failures"}


def test_a_click_on_a_heading_sorts_numbers_as_numbers_and_no_number_last(opened: Chrome) -> None:
    def shown() -> list[str]:
        return column(opened, "cases", "median (ms)")

    click(opened, heading(opened, "cases", "median (ms)"))
    until(lambda: shown() == sorted(shown(), key=float))
    assert float(shown()[0]) == pytest.approx(1, rel=0.01)
    click(opened, heading(opened, "cases", "median (ms)"))
    until(lambda: shown()[: len(HOSTILE)] == [""] * len(HOSTILE))
    assert float(shown()[len(HOSTILE)]) == pytest.approx(60, rel=0.01)
    assert console(opened) == []


@pytest.mark.parametrize("name", [*HOSTILE, "jax"])
def test_the_search_box_keeps_only_what_matches(opened: Chrome, name: str) -> None:
    opened.find_element(By.CSS_SELECTOR, "#cases input[type=search]").send_keys(name)
    rows = opened.find_elements(By.CSS_SELECTOR, "#cases tbody tr")
    assert 0 < len(rows) <= 30
    # The words of a search may be anywhere in a row.
    assert all(all(word in row.text for word in name.replace('"', "").split()) for row in rows)
    assert console(opened) == []


def test_a_column_is_filtered_by_choosing_among_its_values(opened: Chrome) -> None:
    cell = heading(opened, "cases", "status")
    click(opened, cell.find_element(By.CSS_SELECTOR, ".dtcc-button_dropdown"))
    choices = opened.find_elements(By.CSS_SELECTOR, ".dtcc-dropdown .dtcc-list-buttons button")
    assert [choice.text for choice in choices] == ["crashed", "ok"]
    click(opened, choices[0])
    assert column(opened, "cases", "status") == ["crashed"] * len(HOSTILE)


def test_choices_of_hostile_values_are_text(opened: Chrome) -> None:
    click(opened, heading(opened, "cases", "backend").find_element(By.CSS_SELECTOR, ".dtcc-button_dropdown"))
    choices = opened.find_elements(By.CSS_SELECTOR, ".dtcc-dropdown .dtcc-list-buttons button")
    assert {choice.text for choice in choices} == {"auto", "jax", *HOSTILE}
    assert console(opened) == []


def test_on_a_phone_only_tables_scroll_sideways(chromium: Chrome, page: Path, tmp_path: Path) -> None:
    window = show(chromium, page, 375)
    assert window.execute_script("return document.documentElement.scrollWidth") <= 375
    assert window.execute_script(
        "return [...document.querySelectorAll('.dt-layout-full')].some(e => e.scrollWidth > 375)"
    )
    assert window.save_screenshot(str(tmp_path / "phone.png"))
    assert console(window) == []


def test_the_page_prints(opened: Chrome) -> None:
    assert len(opened.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000


def test_without_scripts_the_page_still_holds_every_case(page: Path) -> None:
    cases = page.read_text(encoding="utf-8").partition('<section id="cases">')[2].partition("</section>")[0]
    assert cases.count("<tr>") == 1 + 60 + 2 * len(HOSTILE)
    assert not re.search("<(script|img|b|i)[ >]", cases)


def test_a_page_is_written_whole_and_the_same_each_time(page: Path, tmp_path: Path) -> None:
    assert [path.name for path in page.parent.iterdir() if path.is_file()] == ["report.html"]
    records = [timed("auto", "l", 1.0)]
    assert make_page(tmp_path / "a", records).read_bytes() == make_page(tmp_path / "b", records).read_bytes()


def test_a_run_without_a_single_time_has_a_page(tmp_path: Path) -> None:
    text = make_page(tmp_path, [failed("auto", "l", "because")]).read_text(encoding="utf-8")
    assert "no backend measured every layer" in text
    assert "python -m bench run --workload" in text


def test_a_network_is_won_with_an_interval_and_only_by_whole_sums() -> None:
    records = [timed("slow", "a", 4, count=2), timed("slow", "bb", 2), timed("fast", "a", 2, count=2)]
    records += [timed("fast", "bb", 1), timed("partial", "a", 0.1), failed("partial", "bb", "because")]
    (row,) = fastest_by_network(frame(records)).itertuples()
    assert (row.fastest, row.second, row.layers, row.verdict) == ("fast", "slow", 2, "faster")
    assert row.sum_ms == pytest.approx(5, rel=0.01)
    assert cell(row.second_takes) == "2.00 (1.84 to 2.18)"


def test_no_ratio_is_taken_of_times_of_different_rounds() -> None:
    apart = timed("b", "a", 2)
    apart = replace(apart, case=replace(apart.case, repetition=2))
    (row,) = fastest_by_network(frame([timed("a", "a", 1), apart])).itertuples()
    assert pd.isna(row.second_takes)
    assert row.verdict == "not measured in the same rounds"


def test_the_page_shows_marks_stalls_and_disturbed_turns(tmp_path: Path) -> None:
    record = timed("auto", "l", 2.0)
    stalled = replace(record, stalled_share=0.25, disturbed_s=[1.0], threads_seen="torch 9")
    text = make_page(tmp_path, [stalled]).read_text(encoding="utf-8")
    cases = text.partition('<section id="cases">')[2].partition("</section>")[0]
    heads = re.findall(r"<th [^>]*>([^<]*)</th>", cases)
    cells = dict(zip(heads, re.findall(r"<td[^>]*>([^<\n]*)", cases), strict=True))
    assert (cells["stalled (%)"], cells["disturbed turns"]) == ("25", "1")
    assert (cells["median (ms)"], cells["why"]) == ("~2.01", "threads: torch 9")
    assert f"{NOTE}." in cases
    assert 'data-order="2.007' in cases, "a script sorts by the number, not by its text"
    summary = text.partition('<section id="summary">')[2].partition("</section>")[0]
    assert "~2.01" in summary
    fine = make_page(tmp_path / "fine", [record]).read_text(encoding="utf-8")
    assert f"{NOTE}." not in fine
