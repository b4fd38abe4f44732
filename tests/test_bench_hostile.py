"""Names, reasons and settings of strangers: what leaves the program shows them, and none of it obeys them."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import Bench
from msgspec.structs import asdict, replace
from records import failed, machine, record, store

from bench.analysis import writing
from bench.analysis.frame import frame
from bench.cli import terminal
from bench.report import write
from bench.report.figures import FIGURES, draw_all, save_all
from bench.run.progress import Bar
from bench.store.benchmark_json import open_stored
from bench.store.folder import Run
from bench.store.records import Record, StoreError
from conv_impls.__main__ import main as own_main
from conv_impls.text import visible

ROOT = Path(__file__).parent.parent
ESCAPES = "\x1b[31m", "\x1b]0;title\x07", "\x9b2J", "\x08\r", "\u202e", "\x7f"
FORMULAS = '=HYPERLINK("x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1"
HTML = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "`</code>`",
    "a|b\nc\\|d",
)
# Rich prints its own colours on a terminal only; nothing else of this kind may come out.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
RC = (
    "text.usetex: True\nbackend: tkagg\nfont.family: No Such Font\nfont.size: 40\nsavefig.dpi: 7\naxes.grid: nonsense\n"
)


def command(folder: Path, *arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "bench", *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | env
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, errors="surrogateescape")


def hostile_run(folder: Path) -> Run:
    """A run folder as a stranger may have made it: its names hold everything that must not come alive."""
    records: list[Record] = []
    for number, text in enumerate([*FORMULAS, *HTML]):
        other, times = ESCAPES[number % len(ESCAPES)], (1e-3 * (number + 1),) * 6
        records.append(record("numba_simd", text, times, case={"workload": "resnet50"}, algorithm=other))
        records.append(replace(failed("error", text, text), reason=text + other))
    for name in (*ESCAPES[:2], "$\\frac{", "plain"):
        records.append(record(HTML[0] + name, name, case={"workload": "vgg16"}))
    facts = machine() | {
        "cpu": HTML[0] + ESCAPES[0],
        "commit": FORMULAS[0],
        "warnings": [HTML[1] + ESCAPES[1], HTML[4]],
    }
    config = {"command": f"`a` {HTML[0]} {ESCAPES[0]}", "seed": 0, "cases": [asdict(one.case) for one in records]}
    run = Run.create(folder, config, facts)
    store(run, *records)
    return run


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The report of a hostile run, made by a user whose matplotlib settings are hostile, too."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile_run(folder / "run")
    (folder / "matplotlibrc").write_text(RC)
    (folder / "README.md").write_text("<!-- begin generated: results -->\n<!-- end generated: results -->\n")
    words = ("report", folder / "run", "--out", folder / "out", "--readme", folder / "README.md")
    return folder, command(folder, *words, MPLBACKEND="no such backend", MATPLOTLIBRC=str(folder / "matplotlibrc"))


def test_no_escape_sequence_reaches_the_terminal(reported: tuple[Path, Any]) -> None:
    _, done = reported
    assert done.returncode == 0, done.stderr
    assert not CONTROL.search(done.stdout + done.stderr)
    assert "\\x1b[31m" in done.stdout, "it is shown"
    assert not done.stderr, "and nothing warns of what cannot be drawn"


def test_no_cell_of_a_csv_begins_a_formula_and_numbers_stay_numbers(reported: tuple[Path, Any]) -> None:
    folder, _ = reported
    files = sorted((folder / "out" / "tables").glob("*.csv"))
    assert len(files) > 5
    for file in files:
        text = file.read_text()
        assert not CONTROL.search(text), file
        for row in csv.reader(text.splitlines()):
            for cell in row:
                assert not cell.startswith(writing.FORMULA) or is_number(cell), (file, cell)
    cases = pd.read_csv(folder / "out" / "tables" / "cases.csv")
    assert cases.median_s.dtype == float
    assert {'\'=HYPERLINK("x")', "'+1+1", "'@SUM(A1)", "plain"} <= set(cases.layer)


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


# The tags of a README's block: a figure, and the reasons of weak numbers.
OUR_TAGS = re.compile(r'</?(picture|source|img|details|summary)( (media|srcset|src|alt)="[^"<>]*")*>')


def test_no_html_lives_in_markdown_and_no_name_ends_a_cell(reported: tuple[Path, Any]) -> None:
    folder, _ = reported
    for file in (folder / "out" / "README.md", folder / "README.md"):
        text = file.read_text()
        assert not CONTROL.search(text), file
        # Code spans are shown as they are; of all else no tag and no link may be left but ours.
        outside = re.sub(r"(?<![\\`])(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
        outside = OUR_TAGS.sub("", outside)
        outside = outside.replace("<!-- begin generated: results -->", "").replace(
            "<!-- end generated: results -->", ""
        )
        assert not re.search(r"<[a-zA-Z/!]", outside), file
        assert "](javascript" not in outside.replace("\\](", "")
        for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
            columns = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in table.splitlines()}
            assert len(columns) == 1, (file, table)


def test_a_users_matplotlibrc_changes_no_figure(reported: tuple[Path, Any], tmp_path: Path) -> None:
    folder, done = reported
    assert done.returncode == 0, done.stderr
    run = open_stored(folder / "run")
    table = write.drawable(frame(run.records(), run.cases, environment=run.environment))
    some = {name: FIGURES[name] for name in ("errors", "headline")}
    found, _ = draw_all(some, table, run.environment)
    assert {one.kind for one in found} == some.keys()
    save_all(found, tmp_path)
    for name in some:
        for file in (f"{name}.png", f"{name}.svg"):
            assert (folder / "out/figures" / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_settings_that_matplotlib_cannot_read_change_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe\x00")
    code = "import bench.report.style, matplotlib as m; print(m.rcParamsDefault['font.size'])"
    variables = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "no such backend"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("10.0", "")


@pytest.mark.parametrize("text", [*ESCAPES, "\udc80", "\u2028"])
def test_what_cannot_be_printed_is_spelled(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert visible(f"a{text}b").isprintable()
    terminal.say(text)
    terminal.complain(f"{text}\n  repeat: it")
    terminal.print_table(pd.DataFrame({text: [text]}), text)
    terminal.warn(UserWarning(text))
    with Bar() as bar:
        bar.say(text)
        bar.show(1, 2, text, None)
    said = capsys.readouterr()
    assert not CONTROL.search(said.out + said.err)
    assert "\n  repeat: it" in said.err, "line feeds of a message stay"
    # The checker itself sees them.
    assert CONTROL.search(text) or not text.isascii()


def test_a_csv_of_numbers_and_texts() -> None:
    content = pd.DataFrame({"=a": [-1.5, "-1.5", "＝1"], "b": [1.23456789, float("nan"), -4e-9]})
    assert writing.csv(content) == "'=a,b\n-1.5,1.23457\n'-1.5,\n'＝1,-4e-09\n"


def test_the_librarys_own_commands_show_names_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        own_main(["warmup", "--workload", "no\x1b[31mne"])
    assert not CONTROL.search(capsys.readouterr().err)


@pytest.mark.parametrize(
    "words", [("report", "no\x1b[31mne"), ("run", "--workload", "no\x1b[31mne"), ("run", "--plugin", "\x1b[31m")]
)
def test_errors_of_a_command_show_names_as_text(bench: Bench, words: tuple[str, ...]) -> None:
    done = bench(*words)
    assert done.returncode == 2
    assert not CONTROL.search(done.stdout + done.stderr)
    assert "\\x1b[31m" in done.stderr


BAD_LINES = (
    b"{", b"null", b"\xff\xfe", b"\x00" * 40, b'{"case": {}}', b'{"status": "ok"}', b"[" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("bad", BAD_LINES, ids=range(len(BAD_LINES)))
def test_one_bad_line_loses_that_line_and_names_it(tmp_path: Path, bad: bytes) -> None:
    records = [record(layer=f"l{n}") for n in range(3)]
    run = Run.create(tmp_path / "run", {"cases": [asdict(one.case) for one in records]}, machine())
    store(run, *records)
    path = tmp_path / "run" / "records.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], bad, lines[2], b""]))
    with pytest.warns(UserWarning, match=re.escape(f"{path}:2: ") + ".*; left out") as caught:
        assert [one.case.layer for one in open_stored(tmp_path / "run").records()] == ["l0", "l2"]
    assert str(caught[0].message).isprintable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run.done() == {records[0].case.key, records[2].case.key}, "it is measured again when resumed"


def test_a_run_without_a_line_that_can_be_read_is_an_error(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", {"cases": []}, machine())
    (tmp_path / "run" / "records.jsonl").write_bytes(b"{\n[]\n")
    with pytest.raises(StoreError, match=r"records\.jsonl:1: "):
        open_stored(tmp_path / "run")


def test_a_record_whose_label_is_none_is_a_bad_line(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"cases": []}, machine())
    store(run, record())
    line = json.loads((tmp_path / "run" / "records.jsonl").read_text())
    line["case"]["label"] = "ih8"
    with (tmp_path / "run" / "records.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.warns(UserWarning, match="records.jsonl:2: from_label: .*; left out"):
        assert len(run.records()) == 1


def test_a_command_on_a_run_with_a_bad_line_says_so_in_one_line(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", {"cases": [asdict(record().case)]}, machine())
    store(run, record())
    with (tmp_path / "run" / "records.jsonl").open("a") as file:
        file.write("{\x1b[31m\n")
    done = command(tmp_path, "export", "run", "--out", "out.json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: run/records.jsonl:2: ")
    assert line.endswith("; left out")
    assert not CONTROL.search(line)
