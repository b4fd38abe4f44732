"""Texts of the command line: one word or several, names with commas, plug-ins that fail, folders that are taken."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, Bench, one_line
from records import CASE, new_run

from bench.cli import main as command_line
from bench.machine import probes
from bench.run import session
from bench.run.options import HELP, Options, UsageError, choice, split
from bench.run.request import Request


@pytest.mark.parametrize("text", ["avx2", " avx2", "avx2 "])
def test_one_word_is_kept_without_its_spaces(text: str) -> None:
    asked = Options(isa=text, kernels=" fresh")
    assert (asked.isa, asked.kernels) == ("avx2", "fresh")
    assert asked.variables()["NUMBA_CPU_NAME"] == "haswell"


@pytest.mark.parametrize("given", [{"isa": "avx2,avx2"}, {"isa": " "}, {"kernels": "kept,fresh"}, {"kernels": ""}])
def test_several_words_or_none_are_refused_where_one_is_meant(given: dict[str, str]) -> None:
    (name,) = given
    with pytest.raises(UsageError, match=f"--{name}: expected "):
        Options(**given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"--x: expected a, b \(one word\), got 'a,b'"):
        choice("a,b", "--x", ("a", "b"))


def test_a_comma_in_a_layers_name_separates_nothing() -> None:
    assert split('ic3n"a,b,c",vgg16, vgg16', "--workload") == ['ic3n"a,b,c"', "vgg16"]
    assert split('ic3n"a,b', "--workload") == ['ic3n"a', "b"]
    (case,) = Options(workload='ic3ih8oc4kh3n"a,b"', backends="numpy_strided", threads="1").cases()
    assert case.layer == "a,b"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def", "SyntaxError: "),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_a_plug_in_that_fails_is_one_line(bench: Bench, tmp_path: Path, code: str, words: str) -> None:
    (tmp_path / "failing_plugin.py").write_text(code)
    one_line(bench("run", "--workload", TINY, "--plugin", "failing_plugin"), f"cannot be imported: {words}")


def test_a_plug_in_may_not_take_the_name_of_the_machine(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "named_plugin.py").write_text(
        "from conv_impls import register\n@register('machine')\ndef run(x, weight, bias, problem): ...\n"
    )
    asked = "run", "--workload", TINY, "--plugin", "named_plugin", "--backends"
    for names in ("machine", "all", "numpy_strided"):
        one_line(
            bench(*asked, names), "'machine' is reserved for the machine's peak; register the backend under another"
        )


@pytest.mark.parametrize("taken", ["run", "file", "file/run", "/proc/run"])
def test_a_folder_is_refused_before_the_machine_is_measured(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    def never() -> dict[str, Any]:
        raise AssertionError("measured for nothing")

    new_run(tmp_path / "run", CASE)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(probes, "measure_machine", never)
    one_line(bench("run", "--workload", TINY, "--backends", "numpy_strided", "--out", taken), taken)


def test_a_request_writes_nothing_until_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "measure_machine", lambda: {})
    folder, asked = tmp_path / "run", Options(TINY, "numpy_strided", "1", seconds=0.5, seed=3)
    request = Request.new(asked, folder)
    assert not folder.exists()
    run = request.open()
    assert run.cases == request.cases == asked.cases()
    assert run.config["repeat"] == "--seconds 0.5 --seed 3"
    assert run.repeat(run.cases[0]) == f"{run.cases[0].repro} --seconds 0.5 --seed 3"
    with pytest.raises(UsageError, match=f"--out: {folder} already contains a run"):
        Request.new(asked, folder)


def test_a_resumed_request_is_the_one_that_made_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "measure_machine", lambda: {})
    folder, asked = tmp_path / "run", Options(TINY, "numpy_strided", "1", seconds=0.5)
    run = Request.new(asked, folder).open()
    resumed = Request.resumed(folder, {"seconds": 0.5})
    assert (resumed.options, resumed.cases, resumed.folder) == (asked, run.cases, folder)
    assert resumed.open().config == run.config
    with pytest.raises(UsageError, match=r"--resume: the run was made with --seconds 0\.5, got 0\.6"):
        Request.resumed(folder, {"seconds": 0.6})


def test_both_fronts_have_every_option() -> None:
    friendly = set(inspect.signature(command_line.run).parameters) - {"context"}
    assert friendly == {known.name for known in fields(Options)} | {"out", "resume"} == set(HELP)
    parser = pytest.Parser(_ispytest=True)
    session.pytest_addoption(parser)
    (group,) = (group for group in parser._groups if group.name == "bench")
    assert {option.names()[0].removeprefix("--bench-") for option in group.options} == friendly
