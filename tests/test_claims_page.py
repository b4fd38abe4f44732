"""What people read of a run, against figures worked out by hand from `handmade`: page, README, CSV files.

Limits: figures have `test_claims_figures`; what a browser makes of the page has `test_bench_html`.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import handmade
import pandas as pd
import pytest
from msgspec.structs import asdict, replace

from bench.analysis.frame import frame
from bench.analysis.numbers import NOTE
from bench.report import readme, write
from bench.store.folder import Run

README = "top\n<!-- begin generated: results -->\nold\n<!-- end generated: results -->\nbottom\n"
ENVIRONMENT = {
    "id": "e", "cpu": "a CPU", "cores": 2, "vector_bits": 256, "python": "3.12", "date": "today", "commit": "abc",
    "packages": {"numpy": "2.9", "numba": "0.99"},
}  # fmt: skip


class Page(HTMLParser):
    """The tables of a page by caption: rows of cells by heading; and the numbers that cells are sorted by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[dict[str, str]]] = {}
        self.orders: dict[str, list[dict[str, str]]] = {}
        self.words = ""
        self._tag, self._caption, self._headings, self._small = "", "", list[str](), False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # A command stands in a cell as code, the best number is strong, and a reason is small.
        if tag in ("code", "strong", "small"):
            self._small = tag == "small"
            return
        self._tag = tag
        if tag == "table":
            self._headings = []
        elif tag == "tr" and self._headings:
            self.tables[self._caption].append({})
            self.orders[self._caption].append({})
        elif tag == "td":
            row = self.tables[self._caption][-1]
            name = self._headings[sum(not key.startswith("why ") for key in row)]
            row[name], self.orders[self._caption][-1][name] = "", dict(attrs).get("data-order") or ""

    def handle_endtag(self, tag: str) -> None:
        self._small = False
        self._tag = self._tag if tag in ("code", "strong", "small") else ""

    def handle_data(self, data: str) -> None:
        self.words += data if self._tag not in ("style", "script") else ""
        if self._tag == "caption":
            self._caption = data
            self.tables[data], self.orders[data] = [], []
        elif self._tag == "th":
            self._headings.append(data)
        elif self._tag == "td":
            row = self.tables[self._caption][-1]
            name = list(row)[-1]
            if self._small:
                row[f"why {name}"] = data.strip()
            else:
                row[name] += data.strip()


class Made(NamedTuple):
    folder: Path
    page: Page
    readme: str
    results: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A report without figures."""
    folder = tmp_path_factory.mktemp("claims")
    records = handmade.records()
    run = Run.create(
        folder / "out" / "runs" / "mine", {"command": "cmd", "cases": [asdict(r.case) for r in records]}, ENVIRONMENT
    )
    with run.writing() as journal:
        for record in records:
            journal.append(record)
    (folder / "README.md").write_text(README)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "FIGURES", {})
        write.write_report(run, folder / "out", folder / "README.md")
    texts = [(folder / "out" / name).read_text() for name in ("report.html", "README.md")]
    return Made(folder / "out", Page(texts[0]), (folder / "README.md").read_text(), texts[1])


def row(rows: list[dict[str, str]], **keys: object) -> dict[str, str]:
    """The one row with these cells; "_" in a name is a space."""
    wanted = {name.replace("_", " "): str(value) for name, value in keys.items()}
    (found,) = [each for each in rows if wanted.items() <= each.items()]
    return found


def test_the_page_lists_every_case_with_its_spread(made: Made) -> None:
    cases = made.page.tables["Every case"]
    # 12 backends on three layers and one on the tail, 5 and one on two threads, 4 on the other network.
    assert len(cases) == (12 * 3 + 1) + (5 * 3 + 1) + 4
    torch = row(cases, network="resnet50", layer="stem", threads=1, backend="torch_nchw")
    # Quartiles 11.75 and 12.5 ms around 12 ms; 2 of 16 samples stalled.
    assert torch["median (ms)"] == "12"
    assert torch["spread (%)"] == "6.25"
    assert (torch["samples"], torch["stalled (%)"], torch["disturbed turns"]) == ("16", "12.5", "0")
    assert (torch["effective GFLOP/s"], torch["of peak (%)"], torch["error / bound"]) == ("0.750", "", "0.100")
    auto = row(cases, network="resnet50", layer="stem", threads=1, backend="auto")
    assert (auto["median (ms)"], auto["spread (%)"]) == ("4", "0")
    assert (auto["of peak (%)"], auto["workspace (MiB)"], auto["algorithm"]) == ("45", "8", "numba_winograd_f4")
    other = row(cases, network="resnet50", layer="stem", threads=1, backend="onnxruntime")
    assert other["disturbed turns"] == "4", "two in each repetition"
    wrong = row(cases, layer="body", backend="numpy_im2col")
    assert (wrong["status"], wrong["median (ms)"], wrong["effective GFLOP/s"]) == ("wrong_result", "", "")
    assert (wrong["error / bound"], wrong["samples"]) == ("7", "0")


def test_the_page_opens_with_the_fastest_and_counts_what_was_right(made: Made) -> None:
    fastest = made.page.tables["Fastest backend of each network"]
    first = row(fastest, network="resnet50", threads=1)
    assert (first["fastest"], first["sum ms"], first["second"], first["layers"]) == ("auto", "19.5", "numba_simd", "3")
    assert first["second takes"].startswith("1.13 ("), "22 over 19.5 ms"
    words = " ".join(made.page.words.split())
    # Not right: numpy_im2col on three layers, python_loops and f6 on one.
    assert "52 of 57 cases were right and timed; the others: 3 wrong result, 1 unsupported, 1 over budget." in words


def test_the_page_shows_each_table_under_its_own_title(made: Made) -> None:
    tables = made.page.tables
    line = row(tables["Ours against others"], network="resnet50", threads=1, ours="auto", theirs="best peer")
    assert line["ratio"].startswith("1.33 ("), "26 over 19.5 ms"
    assert (line["worst layer"], line["its ratio"], line["layers below 0.9"]) == ("body", "0.800", "1 of 3")
    line = row(tables["Each backend against ours of its mode"], network="resnet50", threads=1, backend="torch_nchw")
    assert (line["sum (ms)"], line["ours"], line["ratio"][:6]) == ("36", "auto_eager", "1.57 (")
    value, low, high = map(float, re.findall(r"[\d.]+", line["ratio"]))
    assert low < value < high
    line = row(tables["Each layer against its fastest peer"], network="resnet50", threads=1, layer="body")
    assert (line["theirs"], line["their ms"], line["our ms"], line["ratio"][:6]) == (
        "torch_nchw",
        "2",
        "2.50",
        "0.80 (",
    )
    line = row(tables["Fastest backend of each layer"], network="resnet50", threads=1, layer="tail")
    assert (line["winner"], line["median ms"], line["lead"]) == ("numba_winograd_f6", "2", "1.50")
    line = row(tables["Compiling, preparing, memory"], network="resnet50", threads=1, backend="auto")
    assert (line["compile s"], line["prepare s"], line["pays off after"]) == ("3.50", "0.700", "255")
    line = row(tables["What more threads gain"], workload="resnet50", backend="auto", threads=2)
    assert (line["speedup"], line["efficiency"]) == ("1.57", "0.786"), "19.5 over 12.4 ms, on twice the threads"
    assert row(tables["Cases by status"], backend="python_loops") == {
        "backend": "python_loops", "ok": "2", "over budget": "1", "unsupported": "0", "wrong result": "0",
    }  # fmt: skip
    failures = tables["Cases without a time"]
    assert [each["status"] for each in failures] == 3 * ["wrong_result"] + ["unsupported", "over_budget"]
    assert failures[0]["reason"] == "off by 1"
    assert "--backends numpy_im2col --threads 1" in failures[0]["command"]


def test_the_page_sorts_by_the_numbers_and_puts_what_is_missing_last(made: Made) -> None:
    orders = {
        shown["backend"]: order["ratio"]
        for shown, order in zip(
            made.page.tables["Each backend against ours of its mode"],
            made.page.orders["Each backend against ours of its mode"],
            strict=True,
        )
        if (shown["network"], shown["threads"]) == ("resnet50", "1")
    }
    assert float(orders["torch_nchw"]) == pytest.approx(36 / 23, rel=1e-5)
    assert float(orders["auto"]) == 1e300


def test_the_block_of_the_readme_has_the_ratios(made: Made) -> None:
    lines = [" ".join(line.split()) for line in made.readme.splitlines()]
    assert lines[:2] + lines[-2:] == [line for line in README.splitlines() if line != "old"]
    # Only the first network was measured on two threads: 12.4, 20 and 22.4 ms.
    answer = "auto is 1.61 times as fast as onnxruntime, the best other library, on resnet50, planned, 2 threads ("
    assert any(line.startswith(f"**{answer}") for line in lines)
    table = [line for line in lines if line.startswith("| ")]
    assert table == [
        "| backend | resnet50 |", "| auto | **1.00** |", "| onnxruntime | 1.61 |",
        "| torch_nchw (eager) | 1.81 |",
    ]  # fmt: skip
    assert "a CPU, 2 cores, 256-bit vectors; Python 3.12; numpy 2.9, numba 0.99; today, commit abc." in lines
    assert "<picture>" not in made.readme, "a report without figures shows none"


def test_the_block_of_the_readme_names_the_figure_of_the_run(tmp_path: Path) -> None:
    figures = tmp_path / "some" / "out" / "figures"
    figures.mkdir(parents=True)
    (figures / "headline.png").touch()
    run = Run.create(tmp_path / "run", {"cases": []}, ENVIRONMENT)
    block = readme.summary_block(run, handmade.table(), figures.parent, tmp_path)
    assert 'srcset="some/out/figures/headline-dark.svg"' in block
    assert 'src="some/out/figures/headline.png"' in block


def test_a_ratio_that_may_be_much_too_long_carries_the_mark_and_the_reason() -> None:
    table = handmade.table()
    table = table[table.threads == 1].copy()
    # Too long by 2 * 4 * 0.5 of 19.5 ms = 21%, and by 12 * 0.2 of 36 ms = 7%, which needs no mark.
    first = table.network == "resnet50"
    tail, stem = first & (table.layer == "tail"), first & (table.layer == "stem")
    table.loc[tail & (table.backend == "onnxruntime"), ["bias", "weak"]] = 0.5, "may be 50% too long"
    table.loc[stem & (table.backend == "torch_nchw"), ["bias", "weak"]] = 0.2, "may be 20% too long"
    lines = [" ".join(line.split()) for line in readme.ratios(table)]
    text = "\n".join(lines)
    assert "| onnxruntime | ~1.79 | 1.25 |" in text
    assert "| torch_nchw (eager) | 1.85 | 1.50 |" in text
    assert f"{NOTE}." in lines
    assert lines[-3:] == ["- onnxruntime on resnet50: tail: may be 50% too long", "", "</details>"]


def test_the_block_of_the_readme_leaves_out_what_is_no_network() -> None:
    records = handmade.records()
    other = [replace(r, case=replace(r.case, workload="smoke")) for r in records if r.case.workload == "vgg16"]
    both = frame(records + other)
    assert "smoke" not in "".join(readme.ratios(both[both.threads == 1]))
    assert "| smoke" in "".join(readme.ratios(frame(other))), "where there is no network, the others are shown"


def test_the_index_has_the_ratios_the_files_and_the_runs(made: Made) -> None:
    sections = {part.split("\n")[0]: " ".join(part.split()) for part in made.results.split("\n## ")}
    assert "| onnxruntime | 1.61 |" in sections["# Results"]
    assert "- auto_eager is 1.57 times as fast as torch_nchw" in sections["# Results"]
    assert "report.html" in sections["Files"]
    assert "[mine](runs/mine): a CPU, 2 cores" in sections["Runs"]
    assert "commit abc; `cmd`" in sections["Runs"]


def test_the_files_for_programs_hold_the_same_numbers(made: Made) -> None:
    def read(name: str) -> pd.DataFrame:
        return pd.read_csv(made.folder / "tables" / f"{name}.csv")

    # A table without rows has no file.
    empty = {
        "ladder", "left_out", "numba_direct_over_numpy_im2col", "numpy_strided_over_numpy_im2col", "versions",
        "versions_by_layer",
    }  # fmt: skip
    assert {path.stem for path in (made.folder / "tables").glob("*.csv")} == write.TABLES.keys() - empty
    assert read("network_sums").set_index(["backend", "threads"])["resnet50 (ms)"]["auto", 1] == "19.5"
    assert list(read("headlines").ratio) == pytest.approx([26 / 19.5, 36 / 23, 36 / 37, 16.4 / 12.4, 1.25], rel=1e-5)
    assert read("against").set_index("backend").ratio["numpy_strided"] == pytest.approx(104 / 23, rel=1e-5)
    assert list(read("best_peer_by_layer").theirs) == 2 * ["onnxruntime"] + 2 * ["torch_nchw"] + 3 * ["onnxruntime"]
    assert list(read("regret").regret[:2]) == pytest.approx([20.4 / 16.8, 12.8 / 11.8], rel=1e-5)
    assert list(read("winners").lead[:2]) == pytest.approx([1.4, 4 / 3], rel=1e-5)
    assert {11, 39, 73, 106, 255} <= set(read("costs")["pays off after"])
    assert read("cases").speedup_over_python_loops.max() == pytest.approx(220 / 1), "auto_strict on the body"
    assert read("utilisation").executed_percent_of_peak.dropna().tolist() == pytest.approx([45])
    assert len(read("not_ok")) == 5
