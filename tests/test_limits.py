"""The machine's limits and the folder that remembers them: measured once, believed only when whole and current."""

from __future__ import annotations

import json
import stat
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conv_impls.choice import limits as module
from conv_impls.choice import userdir
from conv_impls.choice.limits import FALLBACK, Limits, limits

MEASURED = dict.fromkeys(FALLBACK, 7.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's own, and no limits in memory before or after it."""
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path / "user"))
    forget()
    yield tmp_path / "user"
    forget()


def forget() -> None:
    limits.cache_clear()
    module._facts.cache_clear()


@pytest.fixture
def measurements(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Instead of measuring: the numbers of threads it was asked for."""
    asked: list[int] = []

    def measure(threads: int) -> dict[str, float]:
        asked.append(threads)
        return MEASURED

    monkeypatch.setattr(module, "_measure", measure)
    return asked


def test_limits_are_measured_and_in_order(folder: Path) -> None:
    single, double = limits(1, "float32"), limits(1, "float64")
    assert 1.5 < single.flops_per_s / double.flops_per_s < 2.7
    assert single.flops_per_s > 1e9
    assert single.cache_bytes_per_s > single.memory_bytes_per_s > 1e8
    assert 0 < single.call_s < 1e-3
    assert (single.l3_bytes_per_s, single.call_s) == (double.l3_bytes_per_s, double.call_s)


def test_one_process_measures_and_the_next_reads(measurements: list[int], folder: Path) -> None:
    for _ in range(2):
        assert limits(1, "float32") == Limits(7, 7, 7, 7, 7)
        forget()
    assert measurements == [1]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


BROKEN = {
    "empty": "",
    "half": '{"a": {"stamp',
    "a list": "[]",
    "no facts": '{"CPU": {"stamp": "now"}}',
    "no numbers": '{"CPU": {"stamp": "now", "facts": {"1": {"float32": "fast"}}}}',
    "negative": json.dumps({"CPU": {"stamp": "now", "facts": {"1": MEASURED | {"l3": -1}}}}),
    "another version": json.dumps({"CPU": {"stamp": "conv_impls 0.0.1", "facts": {"1": MEASURED}}}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_or_stale_file_costs_one_warning_and_is_replaced(
    measurements: list[int], folder: Path, content: str
) -> None:
    limits(1, "float32")
    cpu, entry = next(iter(json.loads((folder / module.FILE).read_text()).items()))
    (folder / module.FILE).write_text(content.replace("CPU", cpu).replace('"now"', json.dumps(entry["stamp"])))
    forget()
    with pytest.warns(RuntimeWarning, match=r"limits\.json (cannot be read|is of another|has no positive)") as seen:
        limits(1, "float32")
    assert len(seen) == 1
    forget()
    limits(1, "float64")
    assert measurements == [1, 1]


def test_the_facts_of_another_machine_stay_in_the_file(measurements: list[int], folder: Path) -> None:
    folder.mkdir()
    (folder / module.FILE).write_text('{"other": {"stamp": "x", "facts": {}}}')
    limits(1, "float32")
    assert set(json.loads((folder / module.FILE).read_text())) > {"other"}


def test_a_folder_that_cannot_be_made_leaves_the_limits_in_memory(measurements: list[int], folder: Path) -> None:
    folder.write_text("a file where the folder would be")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*cannot be read")
        assert limits(1, "float32") == limits(1, "float32") == Limits(7, 7, 7, 7, 7)
    assert measurements == [1]


def test_where_measuring_fails_guesses_serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(threads: int) -> None:
        raise MemoryError("128 MB")

    monkeypatch.setattr(module, "_measure", fail)
    with pytest.warns(RuntimeWarning, match="MemoryError: 128 MB"):
        assert limits(1, "float64").flops_per_s == FALLBACK["float64"]
    assert not (folder / module.FILE).exists()


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
