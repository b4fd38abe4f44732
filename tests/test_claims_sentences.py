"""What a run says it found: who is compared with whom, in which words, and with which warning."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from records import failed, record

from bench.analysis.frame import frame
from bench.analysis.sentences import sentences
from bench.analysis.versions import WEAK
from bench.store.records import Record

CALM = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


def timed(backend: str, time_s: float, mode: str = "planned", **changes: Any) -> list[Record]:
    """Two layers of resnet50; the network has the first twice."""
    return [
        record(backend, layer, tuple(time_s * one for one in CALM), mode=mode, case={"count": count}, **changes)
        for layer, count in (("l1", 2), ("l2", 1))
    ]


def said(*records: list[Record]) -> list[str]:
    return sentences(frame([one for some in records for one in some]))


def test_auto_is_compared_with_the_library_of_the_least_sum() -> None:
    (text,) = said(timed("auto", 1.0), timed("onnxruntime", 1.5), timed("jax", 2.0), timed("numba_simd", 1.1))
    assert text.startswith("auto is 1.50 times as fast as onnxruntime, the best other library, on resnet50, planned, ")
    assert text.endswith(" 1 thread (1.39 to 1.62)")


def test_a_library_may_win() -> None:
    (text,) = said(timed("auto", 1.5), timed("onnxruntime", 1.0))
    start = "auto takes 1.50 times as long as onnxruntime, the best other library, on resnet50, planned, 1 thread"
    assert text == f"{start} (1.39 to 1.62)"


def test_what_cannot_be_told_apart_is_called_so() -> None:
    (text,) = said(timed("auto", 1.0), timed("onnxruntime", 1.02))
    assert text.startswith("auto and onnxruntime, the best other library, cannot be told apart on resnet50, planned, ")
    assert "1.02 times as fast (0.9" in text


def test_eager_calls_are_compared_with_eager_libraries_alone() -> None:
    eager = [timed("auto_eager", 1.0, "eager"), timed("torch_nchw", 3.0, "eager")]
    planned = [timed("auto", 1.0), timed("onnxruntime", 2.0)]
    first, second = said(*eager, *planned)
    assert "auto is 2.00 times as fast as onnxruntime" in first
    assert "auto_eager is 3.00 times as fast as torch_nchw" in second
    assert ", eager, 1 thread" in second
    (alone,) = said(timed("auto", 1.0), eager[1])
    assert "auto is 3.00 times as fast as torch_nchw" in alone, "an eager library may be the best against planned ones"


def test_without_a_library_the_fastest_is_compared_with_the_next() -> None:
    (text,) = said(timed("scipy_fft", 4.0), timed("numba_simd", 1.0), timed("numpy_strided", 2.0))
    assert text.startswith("numba_simd is 2.00 times as fast as numpy_strided, the next, on resnet50, 1 thread (")


def test_a_weak_time_is_a_warning() -> None:
    (text,) = said(timed("auto", 1.0), timed("onnxruntime", 2.0, disturbed_s=[9.0] * 30, turns_s=[2.0] * 2))
    assert text.endswith(WEAK)


def test_a_partial_sum_is_no_rival_and_a_run_of_one_says_its_time() -> None:
    partial = [timed("jax", 0.1)[0], failed("timeout", "jax", "l2")]
    (text,) = said(timed("auto", 1.0), partial)
    assert text == "auto takes 3,000 ms on resnet50, 1 thread; nothing to compare it with"
    (text,) = said(partial)
    assert text == "no backend measured all 2 layers on resnet50, 1 thread: 1 at most"


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread:"), (2, "2 threads:")])
def test_threads_are_counted(threads: int, words: str) -> None:
    (text,) = sentences(
        frame([record(name, times=CALM, case={"threads": threads}) for name in ("auto", "onnxruntime")])
    )
    assert words in text


def test_nothing_measured_says_nothing() -> None:
    assert sentences(pd.DataFrame()) == []
