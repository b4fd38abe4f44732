"""The machine's limits and the folder that remembers them: measured once, believed only when whole and current."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from conv_impls.choice import limits as module
from conv_impls.choice import probes, tuning, userdir
from conv_impls.choice.limits import FALLBACK, Limits, limits
from conv_impls.kernels.runtime import target

ROOT = Path(__file__).parent.parent
MEASURED = {"float32": 100e9, "float64": 50e9, "cache": 100e9, "l3": 50e9, "memory": 20e9, "call_s": 1e-6}
BELIEVED = Limits(100e9, 100e9, 50e9, 20e9, 1e-6)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's own, and no limits in memory before or after it."""
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / "user"))
    forget()
    yield tmp_path / "user"
    forget()


def forget() -> None:
    limits.cache_clear()
    module._known.clear()
    tuning._winners.cache_clear()


@pytest.fixture
def measurements(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Instead of measuring: the numbers of rounds that were asked for."""
    asked: list[int] = []

    def measure(threads: int, rounds: int) -> dict[str, float]:
        asked.append(rounds)
        return MEASURED

    monkeypatch.setattr(probes, "measure", measure)
    return asked


def moment(age_s: float, **changes: Any) -> dict[str, Any]:
    """Numbers measured so many seconds ago."""
    date = datetime.now(UTC) - timedelta(seconds=age_s)
    return {"date": date.isoformat(timespec="seconds"), **MEASURED, **changes}


def test_limits_are_measured_and_in_order(folder: Path) -> None:
    single, double = limits(1, "float32"), limits(1, "float64")
    assert 1.5 < single.flops_per_s / double.flops_per_s < 2.7
    assert single.flops_per_s > 1e9
    assert single.cache_bytes_per_s > single.memory_bytes_per_s > 1e8
    assert 0 < single.call_s < 1e-3
    assert (single.l3_bytes_per_s, single.call_s) == (double.l3_bytes_per_s, double.call_s)


def test_one_process_measures_and_the_next_reads(measurements: list[int], folder: Path) -> None:
    for _ in range(2):
        assert limits(1, "float32") == BELIEVED
        forget()
    assert measurements == [probes.ROUNDS]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("ages_s", "again"),
    [
        ([30], False), ([90], True), ([90, 200], False), ([4000, 5000], True), ([4000] * 3, False),
        ([90_000] * 3, True), ([80_000] * 4, False), ([-100], True), ([-1e9, 30], True),
    ],
)  # fmt: skip
def test_the_next_process_measures_one_moment_more_after_a_while(
    measurements: list[int], ages_s: list[float], again: bool
) -> None:
    moments = [moment(age, float32=1e9) for age in ages_s]
    userdir.add(module.FILE, module._stamp(), {"1": moments})
    for dtype in ("float32", "float64"):
        limits(1, dtype)
    # One round is as short as it can be, and never two of them in a process.
    assert measurements == [1] * again
    kept = module.stored()[1]
    assert len(kept) == min(len(moments) + again, module.KEPT)
    assert kept[again:] == moments[: module.KEPT - again]


def test_a_later_moment_raises_what_a_busy_one_lowered(measurements: list[int]) -> None:
    userdir.add(module.FILE, module._stamp(), {"1": [moment(90, float32=20e9, l3=60e9, memory=9e9, call_s=7e-3)]})
    assert limits(1, "float32") == Limits(100e9, 100e9, 60e9, 20e9, 1e-6)


def test_numbers_that_were_too_good_are_forgotten_after_some_moments(
    measurements: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    userdir.add(module.FILE, module._stamp(), {"1": [moment(90_000, float32=9e11)]})
    monkeypatch.setattr(module, "CHECKED_S", (0, 0, 0, 0))
    seen = []
    for _ in range(module.KEPT + 1):
        seen.append(limits(1, "float32").flops_per_s)
        forget()
    assert seen == [9e11] * (module.KEPT - 1) + [100e9] * 2


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
    with pytest.warns(RuntimeWarning, match=r"limits\.json (cannot be read|is of another|has no positive)") as seen:
        limits(1, "float32")
    assert len(seen) == 1
    forget()
    limits(1, "float64")
    assert measurements == [probes.ROUNDS]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def large(path: Path) -> None:
    """A gigabyte of zeros that takes no room on the disk."""
    with path.open("wb") as file:
        file.truncate(2**30)


STRANGE: dict[str, Callable[[Path], Any]] = {
    "a fifo": fifo,
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
    with pytest.warns(RuntimeWarning, match=r"tuning\.json (cannot be read|has winners that are no names)") as seen:
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


def test_where_measuring_fails_guesses_serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(threads: int, rounds: int) -> None:
        raise MemoryError("128 MB")

    monkeypatch.setattr(probes, "measure", fail)
    with pytest.warns(RuntimeWarning, match="MemoryError: 128 MB"):
        assert limits(1, "float64").flops_per_s == FALLBACK["float64"]
    assert not (folder / module.FILE).exists()
    forget()
    # What was measured before is better than a guess.
    userdir.add(module.FILE, module._stamp(), {"1": [moment(90)]})
    with pytest.warns(RuntimeWarning, match="MemoryError: 128 MB"):
        assert limits(1, "float32") == BELIEVED


def test_threads_that_ask_first_at_once_measure_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def measure(threads: int, rounds: int) -> dict[str, float]:
        asked.append(threads)
        time.sleep(0.05)
        return MEASURED

    monkeypatch.setattr(probes, "measure", measure)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: limits(1, "float32"), range(8))) == {BELIEVED}
    assert asked == [1]


# Eight processes ask at the same moment; each time one measures it appends a line to a file.
FIRST = """
import os, sys, time
from conv_impls.choice import limits, probes
from conv_impls.kernels.runtime import launch
def measure(threads, rounds):
    with open(sys.argv[1], "a") as file:
        file.write("measured\\n")
    time.sleep(0.2)
    return dict(float32=1e11, float64=5e10, cache=1e11, l3=5e10, memory=2e10, call_s=1e-6)
probes.measure = measure
gate, opened = os.pipe()
children = []
for _ in range(8):
    children.append(os.fork())
    if not children[-1]:
        os.close(opened)
        os.read(gate, 1)
        os._exit(limits.limits(1, "float32").flops_per_s != 1e11)
os.close(opened)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
"""


def test_processes_that_ask_first_at_once_measure_once(folder: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    subprocess.run([sys.executable, "-c", FIRST, str(count)], cwd=ROOT, check=True)
    assert count.read_text() == "measured\n"


def test_a_holder_that_crashed_blocks_nobody(measurements: list[int], folder: Path) -> None:
    code = f"from conv_impls.choice import userdir\nimport os\nwith userdir.locked({module.FILE!r}): os._exit(3)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 3
    assert (folder / f"{module.FILE}.lock").exists()
    assert limits(1, "float32") == BELIEVED


def test_a_holder_that_never_ends_is_waited_for_a_while(
    measurements: list[int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(userdir, "TURN_S", 0.05)
    monkeypatch.setattr(userdir, "POLL_S", 0.02)
    monkeypatch.setattr(time, "sleep", slept.append)
    with userdir.locked(module.FILE):
        # Another file description is another holder, also in this process.
        assert limits(1, "float32") == BELIEVED
    assert set(slept) == {0.02}


@pytest.mark.parametrize("make", [fifo, Path.mkdir, lambda path: path.symlink_to(path)])
def test_a_lock_that_is_no_file_is_done_without(
    measurements: list[int], folder: Path, make: Callable[[Path], Any]
) -> None:
    folder.mkdir()
    make(folder / f"{module.FILE}.lock")
    assert limits(1, "float32") == BELIEVED


def test_a_forked_child_needs_no_lock_of_a_thread_it_lacks(measurements: list[int], folder: Path) -> None:
    with module._turn, ThreadPoolExecutor(1) as pool:
        # As if this thread were another one of the parent.
        pool.submit(module._forked).result()
        assert pool.submit(limits, 1, "float32").result() == BELIEVED


def test_renewing_forgets_what_was_measured_before(measurements: list[int]) -> None:
    userdir.add(module.FILE, module._stamp(), {"1": [moment(5, float32=9e11)], "2": [moment(5)]})
    assert limits(1, "float32").flops_per_s == 9e11
    module.renew(1)
    assert limits(1, "float32") == BELIEVED
    assert {threads: len(moments) for threads, moments in module.stored().items()} == {1: 1, 2: 1}


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
