"""The file that remembers the machine's limits, and its folder: whatever is there costs one warning at most."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from believed import BELIEVED, MEASURED, forget, moment

from conv_impls.choice import limits as module
from conv_impls.choice import probes, tuning, userdir
from conv_impls.choice.limits import limits
from conv_impls.kernels.runtime import target

BROKEN = {
    "empty": "",
    "half": '{"a": {"stamp',
    "a list": "[]",
    "no facts": '{"CPU": {"stamp": "now"}}',
    "no moments": json.dumps({"CPU": {"stamp": "now", "facts": {"1": MEASURED}}}),
    "no numbers": '{"CPU": {"stamp": "now", "facts": {"1": [{"float32": "fast"}]}}}',
    "no date": json.dumps({"CPU": {"stamp": "now", "facts": {"1": [MEASURED]}}}),
    "a wrong date": json.dumps({"CPU": {"stamp": "now", "facts": {"1": [moment(0, date="today")]}}}),
    "negative": json.dumps({"CPU": {"stamp": "now", "facts": {"1": [moment(0, l3=-1)]}}}),
    "true": json.dumps({"CPU": {"stamp": "now", "facts": {"1": [moment(0, l3=True)]}}}),
    "not a number": json.dumps({"CPU": {"stamp": "now", "facts": {"1": [moment(0, l3=float("nan"))]}}}),
    "infinite": json.dumps({"CPU": {"stamp": "now", "facts": {"1": [moment(0)]}}}).replace("1e-06", "1e400"),
    "huge": json.dumps({"CPU": {"stamp": "now", "facts": {"1": [moment(0, l3=10**400)]}}}),
    "more digits than Python reads": '{"CPU": ' + "9" * 5000 + "}",
    "deep": "[" * 100_000,
    "deep numbers": '{"CPU": {"stamp": "now", "facts": {"1": ' + "[" * 500 + "]" * 500 + "}}}",
    "another version": json.dumps({"CPU": {"stamp": "conv_impls 0.0.1", "facts": {"1": [moment(0)]}}}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_or_stale_file_costs_one_warning_and_is_replaced(
    measurements: list[int], folder: Path, content: str
) -> None:
    folder.mkdir()
    text = content.replace("CPU", userdir._cpu()).replace('"now"', json.dumps(module._stamp()))
    (folder / module.FILE).write_text(text)
    with pytest.warns(
        RuntimeWarning, match=r"limits\.json (cannot be read|was written with another|contains no positive)"
    ) as seen:
        limits(1, "float32")
    assert len(seen) == 1
    forget()
    limits(1, "float64")
    assert measurements == [probes.ROUNDS]


def large(path: Path) -> None:
    """A gigabyte of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(2**30)


STRANGE: dict[str, Callable[[Path], Any]] = {
    "a fifo": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "not UTF-8": lambda path: path.write_bytes(b'{"\xff": 1}'),
    "a gigabyte": large,
}


@pytest.mark.parametrize("make", STRANGE.values(), ids=STRANGE)
@pytest.mark.parametrize("name", [module.FILE, tuning.FILE])
def test_what_is_no_file_costs_one_warning_and_no_waiting(
    measurements: list[int], folder: Path, make: Callable[[Path], Any], name: str
) -> None:
    folder.mkdir()
    make(folder / name)
    look = tuning._winners if name == tuning.FILE else lambda: limits(2, "float32")
    with pytest.warns(RuntimeWarning, match=rf"{name} cannot be read") as seen:
        look()
    assert len(seen) == 1
    look()  # warnings are errors here: there is no second one
    userdir.add(name, "now", {"a": 1})
    assert make is Path.mkdir or userdir.read(name, "now") == {"a": 1}


@pytest.mark.parametrize("facts", ['"x"', '{"x": 3}', '{"x": ["numba_simd"]}', '{"x": null}', "[[]]", "3"])
def test_winners_that_are_no_names_cost_one_warning(folder: Path, facts: str) -> None:
    folder.mkdir()
    text = f'{{"{userdir._cpu()}": {{"stamp": {json.dumps(tuning._stamp())}, "facts": {facts}}}}}'
    (folder / tuning.FILE).write_text(text)
    with pytest.warns(
        RuntimeWarning, match=r"tuning\.json (cannot be read|contains winners that are not names of backends)"
    ) as seen:
        assert tuning._winners() == {}
    assert len(seen) == 1


def test_the_facts_of_another_machine_stay_in_the_file(measurements: list[int], folder: Path) -> None:
    folder.mkdir()
    (folder / module.FILE).write_text('{"other": {"stamp": "x", "facts": {}}}')
    limits(1, "float32")
    assert set(json.loads((folder / module.FILE).read_text())) > {"other"}


def test_machines_are_told_apart_by_family_model_and_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, caches = tmp_path / "cpuinfo", tmp_path / "cpu0" / "cache"
    monkeypatch.setattr(target, "CPUINFO", info)
    monkeypatch.setattr(target, "CPUS", tmp_path)
    assert target.identity() == {}
    first = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\nstepping\t: 1\n"
    info.write_text(first + "\n" + first.replace("25", "6"))
    for index, (kind, size) in enumerate([("Data", "32K"), ("Unified", "1024K")]):
        (caches / f"index{index}").mkdir(parents=True)
        for part, text in (("level", f"{index + 1}"), ("type", kind), ("size", size)):
            (caches / f"index{index}" / part).write_text(text + "\n")
    expected = {"cpu family": "25", "model": "1", "stepping": "1", "L1": "32K", "L2": "1024K"}
    assert target.identity() == expected
    keys = set()
    for text in (first, first.replace("25", "26"), first.replace("\t\t: 1", "\t\t: 17")):
        info.write_text(text)
        userdir._cpu.cache_clear()
        keys.add(userdir._cpu())
    (caches / "index1" / "size").write_text("2048K\n")
    userdir._cpu.cache_clear()
    assert len(keys | {userdir._cpu()}) == 4
    userdir._cpu.cache_clear()


def test_a_folder_that_cannot_be_made_leaves_the_limits_in_memory(measurements: list[int], folder: Path) -> None:
    folder.write_text("a file where the folder would be")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*cannot be read")
        assert limits(1, "float32") == limits(1, "float32") == BELIEVED
    assert measurements == [probes.ROUNDS]


def test_a_folder_that_cannot_be_written_leaves_the_limits_in_memory(
    measurements: list[int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    userdir.add(module.FILE, module._stamp(), {"1": [moment(90)]})

    def refuse(*arguments: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied")

    # As root writes wherever it likes, the calls refuse.
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(fcntl, "flock", refuse)
    assert limits(1, "float32") == BELIEVED
    assert measurements == [1]


def test_writers_at_once_leave_a_whole_file(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: userdir.add("x.json", "now", {str(i): i}), range(40)))
    facts = userdir.read("x.json", "now")
    assert facts
    assert all(int(key) == value for key, value in facts.items())
    assert [path.name for path in folder.iterdir()] == ["x.json"]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONV_IMPLS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert userdir.folder() == Path("/x/conv_impls")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert userdir.folder() == tmp_path / ".cache" / "conv_impls"


def test_a_user_without_a_home_gets_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CONV_IMPLS_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert userdir.folder().parent == Path(tempfile.gettempdir())
