"""Times and pictures of the tutorial's rungs: computed from a run and from code, worked out by hand here."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import asdict, replace
from pages import DOCS
from records import record, store

from bench.run.options import RUNS
from bench.store.folder import Run
from bench.store.records import Case
from conv_impls import Conv2dProblem
from conv_impls.filters import KERNELS
from conv_impls.reference import reference
from docs.extensions import ladder as ladders
from docs.extensions import pictures
from docs.extensions.ladder import DENSE, DEPTHWISE, RUNGS, compared, ladder, newest

SMALL, LARGE = "mb1ic4ih8oc4oh8kh3ph1", "mb1ic8ih16oc8oh16kh3ph1"
STRIDED, WIDE = "mb1ic64ih64oc64oh32kh3sh2ph1", "mb1ic64ih64oc64oh64kh5ph2"
EACH = "g8mb1ic8ih16oc8oh16kh3ph1"
FACTS = {"cpu": "A CPU", "cores": 4, "date": "2026-01-02 03:04 UTC"}
# Milliseconds: each rung on both dense layers, and on the depthwise layer.
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


def test_the_newest_run_of_the_reader_comes_before_a_committed_one(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="make bench"):
        newest(tmp_path)
    first = sorted(ladders.committed())[0]
    for name, date in ((first, "2101"), ("old", "2098"), ("new", "2099"), ("small", "2100"), ("broken", "2102")):
        labels = (LARGE, EACH) if name != "small" else (LARGE,)
        cases = [Case("w", label, label, 1, backend, 2) for label in labels for backend in RUNGS]
        run = Run.create(tmp_path / name, {"cases": [asdict(case) for case in cases]}, FACTS | {"date": date})
        store(run, *(replace(record(times=(0.5,) * 9), case=case) for case in cases))
        if name == first:
            assert newest(tmp_path).machine.endswith(", 2101"), "there is no other"
    (tmp_path / "broken" / "environment.json").write_text("{", encoding="utf-8")
    found = newest(tmp_path)
    assert found.machine.endswith(", 2099"), "not an older one, a committed one, a broken one, or one without a rung"
    assert found.sentence("numba_simd").startswith("500 ms for one call")


def test_the_tutorial_has_every_rung_in_order() -> None:
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^```\{rung\} (\w+)$", text, re.MULTILINE)) == RUNGS
    headings = re.findall(r"^## Rung (\d+): (\w+)$", text, re.MULTILINE)
    assert [int(number) for number, _ in headings] == [ladders.number_of(rung) for rung in RUNGS]
    assert [name for _, name in headings if name != "Winograd"] == [r for r in RUNGS if r != "numba_winograd"]
    assert set(pictures.PICTURES) == set(RUNGS)


@pytest.mark.parametrize("rung", RUNGS)
def test_a_picture_has_the_colour_of_the_text_and_identifiers_of_its_own(rung: str) -> None:
    drawn = pictures.svg(rung)
    element = ElementTree.fromstring(drawn)
    assert element.get("aria-label") == pictures.caption(rung)
    assert pictures.INK not in drawn
    assert "currentColor" in drawn
    ids = Counter(one.get("id") for one in element.iter() if one.get("id"))
    assert set(ids.values()) == {1}
    assert all(str(name).startswith(f"{rung}-") for name in ids)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', drawn))
    assert used <= set(ids)
    assert drawn == pictures.svg(rung), "equal builds give equal pages"


def test_the_numbers_of_the_first_picture_are_those_of_a_convolution() -> None:
    texts = [text for text in ElementTree.fromstring(pictures.svg("python_loops")).itertext() if text.strip()]
    numbers = [
        float(text.replace("\N{MINUS SIGN}", "-")) for text in texts if re.fullmatch(r"\N{MINUS SIGN}?\d+", text)
    ]
    image, kernel, result = np.split(np.array(numbers), [36, 45])
    assert np.array_equal(kernel.reshape(3, 3), KERNELS["sobel_x"])
    x, weight = image.reshape(1, 1, 6, 6), kernel.reshape(1, 1, 3, 3)
    right = reference(x, weight, None, Conv2dProblem.from_arrays(x, weight))
    assert np.array_equal(result.reshape(right.shape), right)


def test_a_committed_run_has_a_ladder(tmp_path: Path) -> None:
    for name in ladders.committed():
        if (RUNS / name).is_dir():
            (tmp_path / name).symlink_to(RUNS / name)
    assert len(newest(tmp_path).rows()) == len(RUNGS)
