"""``python -m conv_impls tune | warmup``: what they leave behind, what they print, how they end."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from conv_impls import __main__ as command
from conv_impls import backends
from conv_impls.choice import tuning

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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tune"], "--workload"),
        (["tune", "--workload", "resnet5"], "no workload 'resnet5'; did you mean 'resnet50'"),
        (["warmup", "--workload", "basic", "--threads", "0"], "expected counts such as 1,2, got '0'"),
        (["warmup", "--workload", "basic", "--precision", "loose"], "invalid choice: 'loose'"),
        (["trace", "3x224", "conv 8 k3"], "expected CxHxW such as 3x224x224, got '3x224'"),
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


@pytest.mark.parametrize("name", ["tune", "warmup", "trace"])
def test_help_shows_examples_and_exit_codes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([name, "--help"])
    text = capsys.readouterr().out
    assert f"python -m conv_impls {name} " in text
    assert "130 interrupted" in text
