"""The machine's limits: measured once, again after a while, and believed only where they fit each other."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from believed import BELIEVED, forget, moment

from conv_impls.choice import limits as module
from conv_impls.choice import probes, userdir
from conv_impls.choice.limits import FALLBACK, Limits, limits


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


def test_renewing_forgets_what_was_measured_before(measurements: list[int]) -> None:
    userdir.add(module.FILE, module._stamp(), {"1": [moment(5, float32=9e11)], "2": [moment(5)]})
    assert limits(1, "float32").flops_per_s == 9e11
    module.renew(1)
    assert limits(1, "float32") == BELIEVED
    assert {threads: len(moments) for threads, moments in module.stored().items()} == {1: 1, 2: 1}
