"""The ladder of the tutorial and the cost of a start, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import handmade
import pandas as pd
import pytest
from records import record

from bench.analysis.frame import frame
from bench.report import ladder, start
from bench.report.style import NothingToDraw
from bench.store.records import Record

ENVIRONMENT: dict[str, Any] = {"cpu": "a CPU", "cores": 2, "date": "today"}
DENSE, WIDE = 'mb1ic8ih12oc8oh12kh3ph1n"{}"', 'mb1ic16ih12oc16oh12kh3ph1n"{}"'
STRIDED, DEPTHWISE = 'mb1ic64ih12oc64oh6kh3sh2ph1n"{}"', 'g8mb1ic8ih12oc8oh12kh3ph1n"{}"'


def timed(workload: str, layer: str, label: str, **seconds: float) -> list[Record]:
    return [
        record(name, layer, (time,) * 8, case={"workload": workload, "label": label.format(layer)}, mode="planned")
        for name, time in seconds.items()
    ]


def title(figure: Any) -> str:
    return " ".join(figure.get_suptitle().split())


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_the_ladder_climbs_on_one_dense_layer() -> None:
    table = handmade.table()
    figure = ladder.ladder(table[table.threads == 1], ENVIRONMENT, "resnet50")
    # The only dense 3x3 layer: 630, 20, 9, 7 and, with f6, 3 ms; auto 4. numpy_im2col is wrong.
    assert title(figure) == "Dense 3x3: rung 7 (Winograd) is 210 times as fast as rung 1"
    axes: Any = figure.axes[0]
    assert axes.get_title(loc="left") == "resnet50, stem"
    start_of_bars = 0.5
    assert [bar.get_width() + start_of_bars for bar in axes.patches] == pytest.approx([1, 31.5, 70, 90, 210, 157.5])
    assert "7  Winograd (numba_winograd_f6): fewer products" in texts(axes)
    assert {"1x, 630 ms", "210x, 3 ms", "158x, 4 ms"} <= set(texts(axes))


TWO = [
    *timed("net", "narrow", DENSE, python_loops=8.0, numpy_strided=1.0, scipy_fft=2.0, numba_simd=0.5, auto=0.6),
    *timed("net", "wide", WIDE, python_loops=9.0, numpy_strided=3.0, scipy_fft=6.0, numba_simd=9.0, auto=1.0),
    # More work, but larger strides come after stride 1.
    *timed("net", "strided", STRIDED, python_loops=9.0, numpy_strided=3.0, scipy_fft=6.0, numba_simd=1.0, auto=1.0),
    *timed("other", "dw", DEPTHWISE, python_loops=4.0, numba_simd=0.5, numba_depthwise=0.1, auto=0.1),
]


def test_a_slower_rung_is_drawn_as_one_and_the_title_names_it() -> None:
    figure = ladder.ladder(frame(TWO), ENVIRONMENT, "net")
    # Of two dense layers with as many rungs, the one with more work.
    assert title(figure) == (
        "Dense 3x3: rung 3 (numpy_strided) is 3 times as fast as rung 1; rungs 4 and 6 are slower than the rung below. "
        "Depthwise: rung 8 (numba_depthwise) is 40 times as fast as rung 1"
    )
    dense, depthwise = figure.axes
    assert (dense.get_title(loc="left"), depthwise.get_title(loc="left")) == ("net, wide", "other, dw")
    hatched = [bool(bar.get_hatch()) for bar in dense.patches]
    assert hatched == [False, False, True, True, False], "auto is not a rung"
    assert "1.50x, 6 s, 0.50x the rung below" in texts(dense)
    assert not any(bar.get_hatch() for bar in depthwise.patches)


def test_the_ladder_of_the_other_workload_has_only_its_layer() -> None:
    figure = ladder.ladder(frame(TWO), ENVIRONMENT, "other")
    assert title(figure) == "Depthwise: rung 8 (numba_depthwise) is 40 times as fast as rung 1"
    assert len(figure.axes) == 1


def test_a_ladder_that_does_not_climb_says_so() -> None:
    part = ladder.rungs(frame(timed("net", "l", DENSE, python_loops=1.0, numpy_im2col=2.0)), ("net", "l"))
    assert ladder.title(part, pd.DataFrame()) == (
        "Dense 3x3: no rung is faster than rung 1 (python_loops); rung 2 is slower than the rung below"
    )
    equal = ladder.rungs(frame(timed("net", "l", DENSE, python_loops=1.0, numpy_im2col=1.0)), ("net", "l"))
    assert not equal.slower.any(), "as fast is not slower"


def test_the_ladder_marks_weak_times() -> None:
    table = frame(timed("net", "l", DENSE, python_loops=4.0, numba_simd=2.0, numba_direct=3.0))
    weak = table.assign(weak=table.backend.map({"numba_simd": "why"}).fillna(""))
    assert "is ~2 times as fast as rung 1" in title(ladder.ladder(weak, ENVIRONMENT, "net"))
    other = table.assign(weak=table.backend.map({"numba_direct": "why"}).fillna(""))
    assert "is 2 times as fast as rung 1" in title(ladder.ladder(other, ENVIRONMENT, "net"))


def test_the_rungs_are_of_one_number_of_threads() -> None:
    table = frame(timed("net", "l", DENSE, python_loops=4.0, numba_simd=2.0, auto=1.0))
    two = table[table.backend == "auto"].assign(threads=2)
    with pytest.raises(NothingToDraw):
        ladder.ladder(pd.concat([table, two]), ENVIRONMENT, "net")
    both = pd.concat([table, table.assign(threads=2, median_s=[9.0, 3.0, 1.0])])
    assert "is 3 times as fast as rung 1" in title(ladder.ladder(both, ENVIRONMENT, "net"))


@pytest.mark.parametrize("records", [
    timed("net", "l", DENSE, python_loops=1.0, auto=0.5),
    timed("net", "l", 'mb1ic8ih12oc8oh12kh1n"{}"', python_loops=1.0, numba_simd=0.5),
    timed("net", "l", DENSE, onnxruntime=1.0, jax=0.5),
])  # fmt: skip
def test_no_ladder_without_two_rungs_on_such_a_layer(records: list[Record]) -> None:
    with pytest.raises(NothingToDraw, match="no dense 3x3 or depthwise layer of net"):
        ladder.ladder(frame(records), ENVIRONMENT, "net")


def test_the_cost_of_a_start_names_who_leads_from_how_many_passes_on() -> None:
    table = handmade.table()
    figure = start.start(table[table.threads == 1], ENVIRONMENT, "resnet50")
    # Once and per pass: torch_nchw 0 and 36 ms; onnxruntime 10.5 and 35 ms; auto_eager 500 and 23 ms; auto 3500 + 700
    # and 19.5 ms. 10.5 / 1 = 10.5; (500 - 10.5) / 12 = 40.8; (4200 - 500) / 3.5 = 1057.1.
    assert title(figure) == (
        "resnet50: torch_nchw costs least for one pass, auto from 1,058 passes on (onnxruntime, auto_eager in between)"
    )
    lines: Any = figure.axes[0].lines
    first = [line.get_ydata()[0] for line in lines]
    assert sorted(first) == pytest.approx([0.036, 0.037, 0.0455, 0.523, 4.2195])


def costs(**rows: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(rows, orient="index", columns=["once_s", "run_s"])


def test_the_leaders_of_a_start_are_exact() -> None:
    # Equal at n = 2, so the faster one leads from there on.
    assert start.leaders(costs(a=(0.0, 2.0), b=(2.0, 1.0))) == [("a", 1), ("b", 2)]
    assert start.leaders(costs(a=(0.0, 2.0), b=(1.9, 1.0))) == [("a", 1), ("b", 2)]
    assert start.leaders(costs(a=(0.0, 1.0), b=(1.0, 2.0))) == [("a", 1)]
    assert start.leaders(costs(a=(1.0, 1.0), b=(1.0, 1.0))) == [("a", 1)]
    # Two overtake at once: the faster one leads.
    assert start.leaders(costs(a=(0.0, 3.0), b=(10.0, 2.0), c=(20.0, 1.0))) == [("a", 1), ("c", 10)]
    for rows in (costs(a=(0.0, 7.0), b=(3.3, 5.1), c=(90.0, 4.9)), costs(a=(0.1, 0.3), b=(0.2, 0.299), c=(5.0, 0.1))):
        leads = dict(reversed([(n, name) for name, n in start.leaders(rows)]))
        for n in range(1, 700):
            total = rows.once_s + n * rows.run_s
            leader = next(name for first, name in leads.items() if first <= n)
            assert total[leader] <= total.min() * (1 + 1e-12), (n, leader)


def test_the_title_of_a_start_with_one_leader_or_weak_times() -> None:
    assert start.title([("a", 1)], "net", False) == "net: a costs least for any number of passes"
    assert start.title([("a", 1), ("b", 12345)], "net", True) == (
        "net: a costs least for one pass, b from ~12,345 passes on"
    )
