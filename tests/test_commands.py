"""``python -m conv_impls tune | warmup``: what they leave behind, what they print, how they end."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conv_impls import Conv2dProblem, backends, warmup
from conv_impls import __main__ as command
from conv_impls.choice import limits, probes, tuning, userdir

LABELS = 'mb1ic2ih6oc3kh3ph1n"first"\nmb1ic3ih6oc2kh1n"second"\n'


@pytest.fixture
def layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A workload of two small layers, and a folder of this test's own."""
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / "user"))
    tuning._winners.cache_clear()
    path = tmp_path / "mine.txt"
    path.write_text(LABELS)
    return str(path)


def test_tune_remembers_a_winner_for_every_layer_and_number_of_threads(
    layers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["tune", "--workload", layers, "--threads", "1,1", "--precision", "strict"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[:3] for line in out.splitlines()] == [[n, "1", "threads"] for n in ("first", "second")] * 2
    assert [line.split(",")[0] for line in err.splitlines()] == ["1/4 first", "2/4 second", "3/4 first", "4/4 second"]
    (entry,) = json.loads((tmp_path / "user" / tuning.FILE).read_text()).values()
    assert sorted(key.split()[1:] for key in entry["facts"]) == [["strict", "1"]] * 2


def test_tune_measures_equal_layers_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / "user"))
    (tmp_path / "mine.txt").write_text(LABELS + LABELS.replace("first", "third").replace("second", "fourth"))
    planned: list[str] = []

    def spy(problem: Conv2dProblem, weight: object, **options: Any) -> SimpleNamespace:
        planned.append(problem.name)
        return SimpleNamespace(threads=options["threads"], backend=f"best for {problem.name}")

    monkeypatch.setattr(command, "plan", spy)
    assert command.main(["tune", "--workload", str(tmp_path / "mine.txt"), "--threads", "1,2"]) == 0
    assert planned == ["first", "second"] * 2
    lines = [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["first", "second", "third", "fourth"] * 2
    assert [(line[1], line[3]) for line in lines[2:4]] == [("1", "best for first"), ("1", "best for second")]


def test_warmup_measures_nothing(layers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["warmup", "--workload", layers]) == 0
    out, err = capsys.readouterr()
    assert "2 layers are ready" in out
    # One line for each backend, dtype and number of threads, however many layers lead to it.
    assert len(set(err.splitlines())) == len(err.splitlines()) <= 4
    assert all(line.split()[1] in backends() and line.split()[2] == "float32" for line in err.splitlines())
    assert not (tmp_path / "user" / tuning.FILE).exists()


def test_a_terminal_gets_one_bar(
    layers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    command.main(["tune", "--workload", layers])
    err = capsys.readouterr().err
    assert "\n" not in err
    assert re.search(rf"\[{'#' * 12}{' ' * 12}\] 2/2 second, \d+ s left", err)


NUMBERS = {"float32": 1e11, "float64": 5e10, "cache": 1e11, "l3": 5e10, "memory": 2e10, "call_s": 1e-6}


@pytest.fixture
def measured(layers: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """No limits are measured; the list has the number of threads of each request."""
    asked: list[int] = []

    def measure(threads: int, rounds: int) -> dict[str, float]:
        asked.append(threads)
        return NUMBERS

    monkeypatch.setattr(probes, "measure", measure)
    limits.limits.cache_clear()
    limits._known.clear()
    return asked


def test_machine_measures_nothing_and_says_so(measured: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["machine"]) == 0
    out, err = capsys.readouterr()
    assert [line.strip() for line in out.splitlines()].count("none measured yet") == 2
    assert (measured, err) == ([], "")


def test_machine_shows_dates_numbers_and_what_is_implausible(
    measured: list[int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    moments = [{"date": f"2026-01-0{day}T03:04:05+00:00", **NUMBERS} for day in (2, 1)]
    busy = [{"date": "2026-01-02T03:04:05+00:00", **NUMBERS, "float32": 19e9, "float64": 19e9, "call_s": 7e-3}]
    userdir.add(limits.FILE, limits._stamp(), {"2": busy, "1": moments, "x": "?"})
    assert command.main(["machine"]) == 0
    out = capsys.readouterr().out
    assert f"limits   {tmp_path / 'user' / limits.FILE}" in out
    first, second = out[out.index("  1 thread") : out.index("winners")].split("  2 threads")
    assert (
        "measured 2026-01-02 03:04 UTC, best of 2 measurements since 2026-01-01 03:04 UTC; next measurement after 2026"
        in first
    )
    assert "float32 multiply-adds          100 GFLOP/s" in first
    assert "implausible" not in first
    told = [line.split() for line in second.splitlines() if "implausible" in line]
    assert [(line[0], line[-3]) for line in told] == [("float32", "100"), ("float64", "40"), ("starting", "100")]


def test_machine_renews_limits_and_winners(
    measured: list[int], layers: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command.main(["tune", "--workload", layers, "--threads", "1"])
    before = tuning.winners()
    assert [name in backends() for name in before.values()] == [True, True]
    tuned: list[object] = []
    monkeypatch.setattr(tuning, "tune", lambda *question: tuned.append(question))
    measured.clear()
    userdir.add(limits.FILE, limits._stamp(), {"1": [{"date": "2026-01-02T03:04:05+00:00", **NUMBERS, "l3": 1e12}]})
    userdir.add(tuning.FILE, tuning._stamp(), {"nonsense": "numba_simd", "mb1 strict one": "numba_simd"})
    capsys.readouterr()
    assert command.main(["machine", "--renew", "--threads", "1,1"]) == 0
    out, err = capsys.readouterr()
    assert measured == [1]
    assert limits.stored()[1][0]["l3"] == NUMBERS["l3"]
    assert tuned == list(before)
    assert [line.split(",")[0].split(" ")[0] for line in err.splitlines()] == ["1/3", "2/3", "3/3"]
    assert all(f"standard, 1 thread: {name}" in out for name in before.values())


def test_machine_survives_broken_files(measured: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "user").mkdir()
    for name in (limits.FILE, tuning.FILE):
        (tmp_path / "user" / name).write_text("[" * 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert command.main(["machine"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["warning:"] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tune"], "--workload"),
        (["tune", "--workload", "resnet5"], "no workload 'resnet5'; did you mean 'resnet50'"),
        (["warmup", "--workload", "basic", "--threads", "0"], "expected thread counts such as 1,2, got '0'"),
        (["warmup", "--workload", "basic", "--precision", "loose"], "invalid choice: 'loose'"),
        (["trace", "3x224", "conv 8 k3"], "expected CxHxW such as 3x224x224, got '3x224'"),
        (["machine", "--renew", "--threads", "0"], "expected thread counts such as 1,2, got '0'"),
        ([], "required: command"),
    ],
)
def test_a_wrong_command_line_is_told_with_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as done:
        command.main(arguments)
    assert done.value.code == 2
    assert words in capsys.readouterr().err


def test_an_interrupt_ends_with_130(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_warm_up", interrupt)
    assert command.main(["warmup", "--workload", layers]) == 130


def test_a_process_of_warmup_that_is_killed_ends_it_with_words(
    layers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(warmup, "pool", lambda kinds: ProcessPoolExecutor(1, get_context("spawn"), os._exit, (9,)))
    with pytest.raises(SystemExit) as done:
        command.main(["warmup", "--workload", layers])
    assert done.value.code == 2
    assert "a process that compiles was killed, perhaps because memory ran out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tune", "warmup", "trace", "machine"])
def test_help_shows_examples_and_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([name, "--help"])
    text = capsys.readouterr().out
    assert re.search(rf"^try first: python -m conv_impls {name}\b", text, re.MULTILINE)
    assert "130 interrupted" in text


@pytest.mark.parametrize(
    "arguments", [["tune", "--workload", LABELS.splitlines()[0]], ["machine", "--renew"]], ids=["tune", "machine"]
)
@pytest.mark.parametrize("place", ["/proc/nowhere", "file"])
def test_what_could_not_be_remembered_is_not_measured(
    place: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / place))
    monkeypatch.setattr(command, "plan", None)
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert "expected a writable folder, got " in capsys.readouterr().err
