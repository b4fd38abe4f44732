"""What figures claim in titles, labels, bars and points, against figures worked out by hand from `handmade`.

Title rules with ties, one backend, weak numbers and ours slower have `test_claims_titles`, the ladder and the cost of a
start `test_claims_rungs`. Limits: marks of weak numbers have `test_bench_marks`.
"""

from __future__ import annotations

from typing import Any

import handmade
import numpy as np
import pandas as pd
import pytest
from records import record

from bench.analysis import networks
from bench.analysis.frame import frame
from bench.report import accuracy, headline, heatmap, layers, sizes, sweeps
from bench.report.roofline import roofline

approx = pytest.approx
ENVIRONMENT: dict[str, Any] = {"cpu": "a CPU", "cores": 2, "date": "today", "machine": handmade.MACHINE}


@pytest.fixture(scope="module")
def one() -> pd.DataFrame:
    """The part of the run on one thread."""
    table = handmade.table()
    return table[table.threads == 1]


def title(figure: Any) -> str:
    return " ".join(figure.get_suptitle().split())


def texts(figure: Any) -> list[str]:
    return [text.get_text().strip() for text in figure.axes[0].texts]


def rows_of(axes: Any) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_headline_is_relative_to_the_best_library(one: pd.DataFrame) -> None:
    figure = headline.headline(one, ENVIRONMENT)
    # resnet50: auto 4 + 3*2.5 + 2*4 = 19.5 ms, onnxruntime 6 + 15 + 14 = 35, torch_nchw 12 + 6 + 18 = 36; vgg16: 80
    # and 100 ms. 35 / 19.5 = 1.79.
    assert title(figure) == (
        "auto is faster than the best library on 2 of 2 networks: 1.25 to 1.79 times as fast "
        "(planned, batch 1, 1 thread)"
    )
    first, second = figure.axes[:2]
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("resnet50", "vgg16")
    assert (first.get_xlabel(), second.get_xlabel()) == ("time; 1 is 35 ms", "time; 1 is 100 ms")
    drawn = dict(zip(rows_of(first), texts(figure), strict=True))
    # torch_nchw: per layer the median of the paired ratios, 12/6 of 6 ms, 2/5 of 15 ms, 9/7 of 14 ms.
    assert drawn == {
        "auto": "0.56", "onnxruntime": "1.00", "torch_nchw (eager)": "1.03", "auto_eager (eager)": "0.66",
        "auto_strict": "1.06",
    }  # fmt: skip
    other = dict(zip(rows_of(first), [text.get_text() for text in second.texts], strict=True))
    assert other["torch_nchw (eager)"] == "1.20"
    assert other["auto_strict"] == "not measured"


def test_the_headline_is_of_one_number_of_threads() -> None:
    table = handmade.table()
    two = headline.headline(table, ENVIRONMENT)
    # 3.8 + 3.6 + 5 = 12.4 ms and 4 + 9 + 7 = 20.
    assert title(two).startswith("auto is faster than the best library on resnet50: 1.61 times as fast (planned, ")
    assert "2 threads)" in title(two)
    assert "1 thread)" in title(headline.headline(table, ENVIRONMENT, 1))


def test_without_libraries_the_headline_is_relative_to_the_fastest(one: pd.DataFrame) -> None:
    own = one[~one.backend.isin(["torch_nchw", "onnxruntime"])]
    rows = networks.relative(own[own.network == "resnet50"]).set_index("backend")
    # Of those that measured all layers: auto 19.5, auto_eager 23, numba_simd 7 + 6.6 + 8.4 = 22, f4 28.2 ms.
    assert rows.relative["numba_simd"] == approx(22 / 19.5)
    assert np.isnan(rows.relative["python_loops"]), "two of three layers"
    # The mode is that of auto; others may be eager.
    assert title(headline.headline(own, ENVIRONMENT)) == (
        "auto takes the least time on 2 of 2 networks; another is about as fast on 1 of them "
        "(planned, batch 1, 1 thread)"
    )


def test_a_comparison_keeps_backends_of_the_user_and_no_rungs() -> None:
    names = ["auto", "auto_eager", "numba_simd", "python_loops", "onnxruntime", "mine", "auto@v0.3.0"]
    assert networks.contenders(names) == ["auto", "auto@v0.3.0", "auto_eager", "mine", "onnxruntime"]
    assert "numba_simd" in networks.contenders(["numba_simd", "onnxruntime"]), "there is no auto"


def test_layers_are_compared_with_the_best_library_of_each(one: pd.DataFrame) -> None:
    figure = layers.layers(one, ENVIRONMENT, "resnet50")
    # Best library: 6, 2 and 7 ms; auto: 4, 2.5 and 4 ms, count-weighted 4, 7.5 and 8 of 19.5.
    assert title(figure) == (
        "resnet50: auto is faster than the best library on 2 of 3 layers, slower on 1 (faster for 62% and slower for "
        "38% of its time)"
    )
    axes: Any = figure.axes[0]
    assert rows_of(axes) == ["stem  3x3", "body  1x1", "tail  2x2"]
    assert sorted(texts(figure)) == ["0.80", "1.50", "1.75"]
    dots = {dots.get_label(): dots for dots in axes.collections if dots.get_label() in ("faster", "slower")}
    assert dots["faster"].get_offsets().tolist() == [approx([1.5, 0]), approx([1.75, 2])]
    areas = [*dots["faster"].get_sizes(), *dots["slower"].get_sizes()]
    assert [area / max(areas) for area in areas] == approx([4 / 8, 1, 7.5 / 8])


def test_without_libraries_layers_are_compared_with_the_best_other_backend(one: pd.DataFrame) -> None:
    own = one[~one.backend.isin(["torch_nchw", "onnxruntime"])]
    # numba_winograd_f6 3, numba_simd 2.2, f6 2 ms; auto_strict is a choice.
    assert sorted(texts(layers.layers(own, ENVIRONMENT, "resnet50"))) == ["0.50", "0.75", "0.88"]


def test_bars_are_stacked_by_layer_and_end_at_the_sum(one: pd.DataFrame) -> None:
    figure = layers.shares(one, ENVIRONMENT, "resnet50")
    assert title(figure) == "resnet50: tail takes 41% of the time of auto; 2 of 3 layers take half of it"
    axes: Any = figure.axes[0]
    assert rows_of(axes) == ["auto", "auto_eager", "onnxruntime", "torch_nchw", "auto_strict"]
    assert texts(figure) == ["19.5 ms", "23 ms", "35 ms", "36 ms", "37 ms"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["stem 21%", "body 38%", "tail 41%"]
    bars = [[bar.get_width() for bar in stack] for stack in axes.containers]
    assert [stack[2] for stack in bars] == approx([6e-3, 15e-3, 14e-3]), "onnxruntime"
    assert [bar.get_x() for bar in axes.containers[2]][2] == approx(21e-3)


def test_a_run_of_libraries_alone_has_bars(one: pd.DataFrame) -> None:
    figure = layers.shares(one[one.backend.isin(["torch_nchw", "onnxruntime"])], ENVIRONMENT, "resnet50")
    assert title(figure) == "resnet50: body takes 43% of the time of onnxruntime; 2 of 3 layers take half of it"


def test_the_heat_map_is_in_percent_of_the_fastest_of_each_layer(one: pd.DataFrame) -> None:
    figure = heatmap.heatmap(one, ENVIRONMENT, "resnet50")
    # Fastest: f6 3 ms, auto_strict 1 ms, f6 2 ms; auto 4, 2.5 and 4 ms.
    assert title(figure) == (
        "resnet50: auto reaches 90% of the fastest on 0 of 3 layers, fewer than numba_winograd_f6 (2)"
    )
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert rows_of(axes) == ["stem  3x3", "body  1x1", "tail  2x2"]
    cells = {
        (round(text.get_position()[1]), names[round(text.get_position()[0])]): text.get_text()
        for text in axes.texts
        if text.get_position()[0] < len(names) - 0.5
    }
    assert [cells[i, "auto"] for i in range(3)] == ["75", "40", "50"]
    assert [cells[i, "torch_nchw"] for i in range(3)] == ["25", "50", "22"]
    assert (cells[0, "python_loops"], cells[2, "python_loops"]) == ("<1", "slow")
    assert cells[1, "numba_winograd_f6"] == "-"
    assert "numpy_im2col" not in names, "all its results are wrong"
    assert "without a time: numpy_im2col" in " ".join(figure.get_supxlabel().split())
    # On the right, operations over the least time: 9e6 in 3 ms, 4e6 in 1, 3.2e6 in 2.
    right = [text.get_text() for text in axes.texts if text.get_position()[0] > len(names) - 0.5]
    assert right == ["3", "4", "1.60"]


def test_the_roofline_counts_the_layers_that_reach_the_roof(one: pd.DataFrame) -> None:
    figure = roofline(one[one.workload == "resnet50"], ENVIRONMENT)
    # Bytes: 4 * (5000 + 45000 + 10000), 4 * (40000 + 5000 + 20000), 4 * (16000 + 16000 + 10000).
    intensity = [9e6 / 240e3, 4e6 / 260e3, 3.2e6 / 168e3]
    # Roofs: 2, 0.06 * 15.4 = 0.92 and 0.06 * 19.0 = 1.14 GFLOP/s. Reached: 2.25 = 112% by Winograd, 1.6 = 173%; not
    # reached: 0.8 = 70%. The nearest to its roof is not the one with the highest rate.
    assert title(figure) == (
        "resnet50: 2 of 3 layers reach 85% of the machine's roof, 1 of them by doing fewer operations"
    )
    assert {"body: 173%", "tail: 70%", "FMA peak 2 GFLOP/s", "L3 0.0600 GB/s", "memory 0.0300 GB/s"} <= set(
        texts(figure)
    )
    drawn = {points.get_label(): np.asarray(points.get_offsets()) for points in figure.axes[0].collections}
    assert drawn["ours, fewer operations"].tolist() == [approx([intensity[0], 9 / 4])]
    assert drawn["ours"].tolist() == [approx([intensity[1], 4 / 2.5]), approx([intensity[2], 3.2 / 4])]
    # onnxruntime 6 ms, torch_nchw 2 ms, onnxruntime 7 ms.
    assert drawn["best library"][:, 1].tolist() == approx([9 / 6, 4 / 2, 3.2 / 7])


def test_the_roofline_is_of_the_most_threads_and_has_a_panel_per_workload(one: pd.DataFrame) -> None:
    table = handmade.table()
    figure = roofline(table[table.workload == "resnet50"], ENVIRONMENT)
    # Roofs: 4, 0.25 * 15.4 = 3.85 and 4 GFLOP/s. Rates: 9 / 3.8 = 59%, 4 / 1.2 = 87%, 3.2 / 2.5 = 32%.
    assert title(figure) == "resnet50: 1 of 3 layers reach 85% of the machine's roof"
    assert {"body: 87%", "tail: 32%", "FMA peak 4 GFLOP/s", "L3 0.250 GB/s", "memory 0.100 GB/s"} <= set(texts(figure))
    assert figure.get_supxlabel().startswith("2 threads;")
    both = roofline(one, ENVIRONMENT)
    # The layer of vgg16: 9e6 in 40 ms.
    assert title(both).startswith("2 of 4 layers of 2 workloads reach 85% of the machine's roof, 1 of them")
    assert [axes.get_title(loc="left") for axes in both.axes] == ["resnet50: 2 of 3", "vgg16: 0 of 1"]


def test_errors_are_fractions_of_the_bound(one: pd.DataFrame) -> None:
    table = one.copy()
    table.loc[table.backend == "numba_winograd_f4", "error_over_bound"] = 0.6
    figure = accuracy.errors(table, ENVIRONMENT)
    # All others have 0.1; wrong results have 7. 32 cases of resnet50 are right, and 4 of vgg16.
    assert title(figure) == (
        "All 36 results are within the error bound: at most 0.600 of it (numba_winograd_f4, resnet50 stem)"
    )
    axes: Any = figure.axes[0]
    shown = dict(zip(rows_of(axes), texts(figure), strict=True))
    assert (shown["numba_winograd_f4"], shown["auto"]) == ("0.600", "0.100")
    assert "numpy_im2col" not in shown
    assert "3 wrong results are not drawn" in " ".join(figure.get_supxlabel().split())


def test_the_time_against_the_size_compares_the_two_fastest_at_the_largest() -> None:
    times = {"numba_direct": (1.0, 6.0), "numba_simd": (2.0, 4.0), "scipy_fft": (3.0, 5.0), "auto": (0.5, 4.5)}
    records = [
        record(
            backend, f"image {size}", (1e-3 * ms, 1e-3 * ms, 1.2e-3 * ms, 1.6e-3 * ms, 0.95e-3 * ms),
            case={"workload": "sizes", "label": f'mb1ic{ic}ih{size}oc{ic}oh{size}kh3ph1n"image {size}"'},
        )
        for backend, each in times.items() for size, ms in zip((16, 32), each, strict=True)
        # The series with the most channels is drawn; one size alone is no series.
        for ic in ((8, 64, 128) if size == 16 else (8, 64))
    ]  # fmt: skip
    slower = [
        record("numba_direct", "8", (9.0,) * 5, case={"workload": "sizes", "label": 'mb1ic8ih32oc8oh32kh3ph1n"8"'})
    ]
    figure = sizes.time_vs_size(frame(records + slower), ENVIRONMENT)
    assert title(figure) == "At 32 pixels and 64 channels numba_simd takes 4 ms; auto takes 1.12 times as long"
    axes: Any = figure.axes[0]
    # Of the turns 0.95, 1, 1, 1.2, 1.6 the quartiles are 1 and 1.2: bars go from the median down to q1 and up to q3.
    drawn = dict(zip(("scipy_fft", "numba_direct", "numba_simd", "auto"), axes.containers, strict=True))
    bars = [tuple(segment[:, 1]) for segment in drawn["numba_direct"].lines[2][0].get_segments()]
    assert bars == [approx((1e-3, 1.2e-3)), approx((6e-3, 7.2e-3))]


def test_sweeps_state_gains_by_threads_and_batch() -> None:
    figure = sweeps.threads(handmade.table(), ENVIRONMENT, "resnet50")
    # auto: 19.5 over 12.4 ms. auto_eager ran one layer.
    assert title(figure) == "auto runs resnet50 1.57 times as fast with 2 threads as with 1: efficiency 79%"
    assert {"numba_direct 79%", "numba_simd 86%", "torch_nchw 80%", "auto 79%"} <= set(texts(figure))
    # Milliseconds at batch 1 and 4.
    times = {"numba_simd": (5.0, 8.0), "numba_direct": (3.0, 20.0)}
    batches = [
        record(
            backend, "l1", (1e-3 * ms,) * 4, mode="planned",
            case={"workload": "w", "label": f'mb{batch}ic8ih12oc8oh12kh3ph1n"l1"', "count": 3},
        )
        for backend, each in times.items() for batch, ms in zip((1, 4), each, strict=True)
    ]  # fmt: skip
    figure = sweeps.batch(frame(batches), ENVIRONMENT, "w")
    # An image takes 3 * 5 and 3 * 8 / 4 ms with numba_simd, 3 * 20 / 4 with the other.
    assert title(figure) == "With numba_simd an image of w is 2.50 times as fast in a batch of 4 as in one of 1"
    lines = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    assert [list(line) for line in lines] == [approx([9e-3, 15e-3]), approx([15e-3, 6e-3])]


def test_sweeps_state_from_which_kernel_size_a_method_leads() -> None:
    # Milliseconds at kernel 1, 3, 5, 9.
    times = {"numba_simd": (1.0, 5.0, 9.0, 40.0), "numba_winograd_f2": (2.0, 3.0, 10.0, 50.0)}
    times |= {"scipy_fft": (9.0, 10.0, 11.0, 12.0), "auto": (0.1,) * 4, "onnxruntime": (0.2,) * 4}
    records = [
        record(
            backend, f"8-8 k{k} @12", (1e-3 * ms,) * 4, mode="planned",
            case={"workload": "kernel_sizes", "label": f'mb1ic8ih12oc8oh12kh{k}ph{k // 2}n"8-8 k{k} @12"'},
        )
        for backend, each in times.items() for k, ms in zip((1, 3, 5, 9), each, strict=True)
    ]  # fmt: skip
    figure = sweeps.kernel_sizes(frame(records), ENVIRONMENT)
    assert title(figure) == "FFT takes over for good at kernel 9 (8-8 @12); Winograd leads at 3"
    panel = figure.axes[0].get_title(loc="left")
    assert panel == "8-8 @12: direct from 1, Winograd from 3, direct from 5, FFT from 9"
