"""Many Python threads call plans of two threads at once: every call has the bits of one thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from effort import Effort

from conv_impls import Conv2dProblem, get_backend, plan
from conv_impls.backends import _by_tap
from conv_impls.backends._layout import effective
from conv_impls.validation import Array

# Of every compiled backend, in every way of working: staged or not, by tap, by channel or by position, dense, strided
# or not, in groups, several blocks, one row.
LAYERS = {
    "numba_simd": (
        "ic3ih20oc16oh18kh3", "ic8ih14oc24oh14kh3ph1", "ic16ih9oc40oh9kh1", "ic20ih5oc70oh5kh3ph1",
        "ic4ih23oc8oh11kh3sh2", "g2ic6ih12oc8oh12kh3ph1", "ic5ih16oc9oh14kh3dh0", "ic16ih21oc64oh21kh3ph1",
        "ic3ih21oc64oh21kh3ph1", "ic8ih40oc3oh40kh3ph1",
        "ic40ih1oc90oh1kh1",
    ),
    "numba_direct": ("ic4ih16oc12oh16kh3ph1", "ic6ih7oc20oh7kh3ph1", "ic3ih15oc8oh7kh3sh2"),
    "numba_winograd_f2": ("ic8ih12oc16oh12kh3ph1", "ic5ih17oc7oh15kh3", "ic8ih15oc16oh8kh3sh2ph1"),
    "numba_winograd_f2_5x5": ("ic6ih14oc9oh14kh5ph2", "ic4ih17oc6oh9kh7sh2ph3"),
    "numba_winograd_f4": ("ic8ih16oc16oh16kh3ph1", "ic16ih11oc33oh9kh3", "g2ic8ih12oc12oh12kh3ph1"),
    "numba_winograd_f6": ("ic4ih20oc8oh20kh3ph1", "ic4ih20oc8oh20kh3ph2dh1"),
    "numba_depthwise": (
        "g8ic8ih20oc8oh20kh3ph1", "g6ic6ih15oc6oh7kh3sh2", "g16ic16ih7oc16oh7kh7ph3", "g4ic4ih24oc8oh24kh5ph2",
        "g32ic32ih6oc32oh6kh3ph1",
    ),
}  # fmt: skip
THREADS = 8


def call_of(backend: str, label: str) -> Callable[[], bool]:
    """A call of a plan into an array of its own, and whether the result is right."""
    problem, rng = Conv2dProblem.from_label(label), np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, "float32") for shape in (problem.input_shape, problem.weight_shape))
    ready = plan(problem, weight, backend=backend, threads=2)
    expected: Array = plan(problem, weight, backend=backend, threads=1)(x)
    assert get_backend(backend).deterministic in ("output", "call")

    def call() -> bool:
        return np.array_equal(ready(x), expected)

    return call


def test_direct_layers_go_every_way() -> None:
    ways = [_by_tap.better(effective(Conv2dProblem.from_label(label)), 2) for label in LAYERS["numba_simd"]]
    assert min(ways.count(way) for way in ("rows", "channels", "")) >= 2


@pytest.mark.usefixtures("smallest_jobs_handed_out")
def test_eight_threads_call_layers_of_every_way(effort: Effort) -> None:
    calls = [call_of(backend, label) for backend, labels in LAYERS.items() for label in labels]
    assert len(calls) == 29

    def work(first: int) -> int:
        return sum(not calls[(first + number) % len(calls)]() for number in range(len(calls) * effort.calls // 10))

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == 0
