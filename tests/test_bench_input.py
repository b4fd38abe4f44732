"""Wrong input and spoiled files: one clear line, exit code 2, and nothing that was there is touched."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from commands import TINY, Bench, one_line
from effort import Effort
from records import CASE, new_run, record, store

from bench.report.figures import FIGURES
from bench.store.folder import Run


def resumable(bench: Bench, folder: Path) -> dict[str, Any]:
    """The configuration of a run whose budget was too small for a single case."""
    asked = "--workload", TINY, "--backends", "numpy_strided", "--threads", "1", "--budget", "1e-9"
    done = bench("run", *asked, "--out", folder)
    one_line(done, "--budget: expected more than 1e-09 seconds")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--seed", "3"], "--resume: the run was made with --seed 0, got 3"),
        (["--workload", "smoke"], "--resume: the run was made with --workload"),
        (["--out", "x"], "--out: expected none with --resume"),
    ],
)
def test_resume_refuses_another_configuration(bench: Bench, tmp_path: Path, given: list[str], words: str) -> None:
    resumable(bench, tmp_path / "run")
    done = bench("run", "--resume", tmp_path / "run", *given)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 9.0}, {"seconds": None}, {"cases": []}, {"cases": [3]}, {"options": None}, {"options": {}},
        {"options": {"x": 1}}, {"variables": {"PATH": "x"}}, {"rotate_bytes": "many"}, {"schema": 1}, {"seed": [1]},
    ],
)  # fmt: skip
def test_resume_refuses_a_configuration_someone_changed(bench: Bench, tmp_path: Path, change: dict[str, Any]) -> None:
    config = resumable(bench, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | change))
    one_line(bench("run", "--resume", tmp_path / "run"), "")
    assert not (tmp_path / "run" / "records.jsonl").exists() or not Run(tmp_path / "run").records()


def test_resume_refuses_another_machine(bench: Bench, tmp_path: Path) -> None:
    resumable(bench, tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id": "other", "cpu": "another"}))
    one_line(bench("run", "--resume", tmp_path / "run"), "the machine or versions changed (cpu);")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--backends", "numba_dirct"], "no backend 'numba_dirct'; did you mean 'numba_direct'"),
        (["run", "--workload", "resnet5"], "no workload 'resnet5'; did you mean 'resnet50'"),
        (["run", "--workload", ""], "--workload: expected one or more names"),
        (["run", "--workload", "layers.txt"], "layers.txt:2: "),
        (["run", "--workload", "layers.csv"], "layers.csv"),
        (["run", "--workload", "model.onnx"], "model.onnx"),
        (["run", "--workload", "missing.txt"], "missing.txt"),
        (["run", "--threads", "0"], "--threads: expected counts from 1 to"),
        (["run", "--threads", "two"], "--threads: expected counts from 1 to"),
        (["run", "--threads", "100000"], "--threads: expected counts from 1 to"),
        (["run", "--direction", "bwd"], "--direction: expected fwd, bwd_d, bwd_w"),
        (["run", "--cache", "hot"], "--cache: expected warm, cold, weights"),
        (["run", "--batch", "0"], "--batch: expected integers >= 1"),
        (["run", "--dtype", "float16"], "--dtype: expected"),
        (["run", "--layers", "nowhere"], "--layers: expected part of a layer's name"),
        (["run", "--isa", "sse2"], "--isa: expected avx2"),
        (["run", "--isa", "avx2", "--backends", "onnxruntime"], "--isa: none of these backends"),
        (["run", "--kernels", "old"], "--kernels: expected kept"),
        (["run", "--plugin", "no_such_module"], "--plugin: 'no_such_module' cannot be imported"),
        (["run", "--budget", "-1"], "--budget: expected a number above 0"),
        (["run", "--budget", "0"], "--budget: expected a number above 0"),
        (["run", "--timeout", "nan"], "--timeout: expected a number above 0"),
        (["run", "--timeout", "inf"], "--timeout: expected a number above 0"),
        (["run", "--seconds", "0"], "--seconds: expected a number above 0"),
        (["run", "--repetitions", "0"], "--repetitions: expected a number above 0"),
        (["run", "--workload", f"{TINY},{TINY.replace('oc4', 'oc5')}"], "layer 'tiny' of 'label' is used twice"),
        (["run", "--resume", "nowhere"], "nowhere: no run here"),
        (["run", "--workload", TINY, "--out", "layers.txt/run"], "layers.txt/run: cannot be written"),
        (["run", "--workload", TINY, "--out", "/proc/run"], "/proc/run: cannot be written"),
        (["report", "nowhere"], "nowhere: no run here"),
        (["report", "stored", "--out", "layers.txt/x"], "layers.txt"),
        (["report", "junk"], "junk/records.jsonl:1: "),
        (["report", "truncated"], "truncated/config.json"),
        (["report", "stored", "--out", "own"], "README.md: expected a page of an earlier report"),
        (["compare", "nowhere", "nowhere"], "nowhere: no run here"),
        (["compare", "stored", "junk", "--force"], "junk/records.jsonl:1: "),
        (["compare", "stored", "stored", "--margin", "nan"], "--margin: expected"),
        (["check", "--workload", "ic3ih2oc4kh9"], "expected a kernel that fits"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    bench: Bench, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "layers.txt").write_text("ic3ih8oc4kh3\nic3ih8oc4kh3zz9\n")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("mine")
    (tmp_path / "layers.csv").write_bytes(b"\xff\0junk,\n1,2\n")
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    for name in ("stored", "junk", "truncated"):
        store(new_run(tmp_path / name, CASE), record())
    (tmp_path / "junk" / "records.jsonl").write_bytes(b"\xff\0\n")
    config = tmp_path / "truncated" / "config.json"
    config.write_bytes(config.read_bytes()[:40])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    one_line(bench(*arguments), words)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


JUNK: list[Any] = [None, True, -1, 10**18, 1e308, "", "x", "../..", "\x1b[31m", "ic3ih8oc4kh3", [], [3], {}, {"x": 1}]


def spoiled(value: Any, chance: random.Random) -> Any:
    """A value of JSON with something in it replaced by junk, or left out."""
    if value and isinstance(value, dict) and chance.random() < 0.9:
        key = chance.choice(list(value))
        rest = {name: kept for name, kept in value.items() if name != key}
        return rest if chance.random() < 0.1 else rest | {key: spoiled(value[key], chance)}
    if value and isinstance(value, list) and chance.random() < 0.7:
        at = chance.randrange(len(value))
        return [*value[:at], spoiled(value[at], chance), *value[at + 1 :]]
    return chance.choice(JUNK)


def test_whatever_a_result_file_holds_is_read_or_refused(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effort: Effort
) -> None:
    """Exit codes and one line: `Bench` would let any other exception through."""
    # Figures are made and not saved, which takes longer than all the rest.
    monkeypatch.setattr("bench.report.write.save_all", lambda drawn, folder: None)
    monkeypatch.setattr("bench.report.page._figures", lambda folder, drawn: [])
    monkeypatch.delitem(FIGURES, "filters")
    good, bad = new_run(tmp_path / "good", CASE), tmp_path / "bad"
    store(good, record())
    bad.mkdir()
    chance, codes = random.Random(effort.seed), set()
    for _ in range(effort.files):
        files = {path.name: path.read_text() for path in good.folder.iterdir() if path.name != "lock"}
        name = chance.choice(list(files))
        files[name] = json.dumps(spoiled(json.loads(files[name]), chance)) + "\n"
        if chance.random() < 0.2:
            at = chance.randrange(len(files[name]))
            files[name] = files[name][:at] + chance.choice(["", "\0", "}"]) + files[name][at + chance.randrange(9) :]
        for each, text in files.items():
            (bad / each).write_text(text)
        done = bench("compare", good.folder, bad, "--force")
        codes.add(done.returncode)
        assert done.returncode < 2 or len(done.stderr.strip().splitlines()) <= 3, done.stderr
        done = bench("report", bad, "--out", tmp_path / "report")
        if done.returncode:
            one_line(done, "")
        done = bench("run", "--resume", bad)
        assert done.returncode == 2, "what was made by no run cannot be resumed"
    assert codes <= {0, 1, 2}
    assert 2 in codes


@pytest.mark.parametrize("arguments", [["run", "--no-such-option"], ["nonsense"], ["run", "--seed", "-1"], ["compare"]])
def test_what_the_command_line_does_not_know_is_exit_code_2(bench: Bench, arguments: list[str]) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
