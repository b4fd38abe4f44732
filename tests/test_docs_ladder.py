"""The tutorial's rungs: which run their times come from, and their pictures. `test_claims_ladder` tests the times."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from msgspec.structs import asdict, replace
from pages import DOCS
from records import record, store
from test_claims_ladder import EACH, FACTS, LARGE

from bench.run.options import RUNS
from bench.store.folder import Run
from bench.store.records import Case
from conv_impls import Conv2dProblem
from conv_impls.filters import KERNELS
from conv_impls.reference import reference
from docs.extensions import ladder as ladders
from docs.extensions import pictures
from docs.extensions.ladder import RUNGS, newest


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
