"""Times of the tutorial's rungs, worked out by hand: which layer, which comparison, which marks."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from docs.extensions.ladder import DENSE, DEPTHWISE, RUNGS, compared, ladder

SMALL, LARGE = "mb1ic4ih8oc4oh8kh3ph1", "mb1ic8ih16oc8oh16kh3ph1"
STRIDED, WIDE = "mb1ic64ih64oc64oh32kh3sh2ph1", "mb1ic64ih64oc64oh64kh5ph2"
EACH = "g8mb1ic8ih16oc8oh16kh3ph1"
FACTS = {"cpu": "A CPU", "cores": 4, "date": "2026-01-02 03:04 UTC"}
# Milliseconds of each rung on the large dense layer; a tenth on the small one, half on the depthwise one.
TIMES = dict(zip(RUNGS, (800.0, 400.0, 2.0, 4.0, 1.0, 0.8, 0.4, 0.1), strict=True))


def row(backend: str, label: str, ms: float, **changes: Any) -> dict[str, Any]:
    plain = {
        "status": "ok",
        "threads": 2,
        "batch": 1,
        "direction": "fwd",
        "cache": "warm",
        "dtype": "float32",
        "weak": "",
    }
    return plain | {"backend": backend, "label": label, "median_s": ms / 1e3} | changes


def rows() -> list[dict[str, Any]]:
    return [
        *(row(name, label, TIMES[name] * scale) for label, scale in ((SMALL, 0.1), (LARGE, 1.0)) for name in DENSE),
        *(row(name, EACH, TIMES[name] / 2) for name in DEPTHWISE),
    ]


def test_rungs_are_timed_on_the_largest_layer_that_all_of_them_measured() -> None:
    larger = [row(name, label, 9.0) for label in (STRIDED, WIDE) for name in DENSE]
    partly = [row(name, "mb1ic32ih32oc32oh32kh3ph1", 9.0) for name in DENSE[1:]]
    slow = [row(name, LARGE, 90.0, threads=1) for name in RUNGS]
    found = ladder(pd.DataFrame([*larger, *partly, *slow, *rows()]), FACTS)
    assert found is not None
    assert (found.dense.label, found.depthwise.label) == (LARGE, EACH)
    assert found.machine == "A CPU, 4 cores, 2026-01-02 03:04 UTC"
    assert found.sentence("python_loops") == "800 ms for one call (3x3, 8 to 8 channels, 16x16 pixels, 2 threads)."
    assert found.sentence("numpy_strided").endswith("2 threads): 200 times as fast as rung 2.")
    assert found.sentence("scipy_fft").endswith(": 2.00 times as long as rung 3."), "a slower rung is called slower"
    # 0.8 / 2 against 0.1 / 2 on the depthwise layer.
    assert found.sentence("numba_depthwise").endswith(": 8.00 times as fast as rung 6.")
    assert found.rows()[6:] == [["7", "numba_winograd", "400 us", "2,000"], ["8", "numba_depthwise", "50 us", "8,000"]]
    assert "~" not in found.note()


def test_a_weak_time_is_marked_wherever_it_is_used() -> None:
    weak = [one | {"weak": "few turns" if one["backend"] == "numpy_strided" else ""} for one in rows()]
    found = ladder(pd.DataFrame(weak), FACTS)
    assert found is not None
    assert "~2 ms" in found.sentence("numpy_strided")
    assert "~2.00 times as long" in found.sentence("scipy_fft")
    assert "~" not in found.sentence("numba_simd")
    assert found.rows()[2] == ["3", "numpy_strided", "~2 ms", "~400"]
    assert "~: may be wrong" in found.note()


@pytest.mark.parametrize("missing", [("numpy_im2col", LARGE), ("numba_depthwise", EACH)])
def test_a_run_that_lacks_a_rung_has_no_ladder(missing: tuple[str, str]) -> None:
    failed = [one | {"status": "timeout"} if one["backend"] == missing[0] else one for one in rows()]
    assert ladder(pd.DataFrame(failed), FACTS) is None
    assert ladder(pd.DataFrame(), FACTS) is None


def test_equal_times_are_called_equal() -> None:
    assert compared(1.0, "rung 1") == "as fast as rung 1"
    assert compared(0.25, "rung 1") == "4.00 times as long as rung 1"
