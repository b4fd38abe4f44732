"""Sweeps over threads, batch and kernel size: like is compared with like, and the title says what the data say."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.analysis.numbers import NOTE
from bench.analysis.tables import thread_efficiency
from bench.report import sweeps
from bench.report.figures import FIGURES
from bench.report.style import NothingToDraw
from conv_impls import workloads

SWEEPS = [name for name, kind in FIGURES.items() if kind.sweep]
ENVIRONMENT = {"cpu": "a CPU", "cores": 4, "date": "2026-01-01"}
CASE: dict[str, Any] = {
    "workload": "net", "layer": "a", "label": 'mb1ic8ih8oc8oh8kh3ph1n"a"', "count": 1, "backend": "numba_simd",
    "algorithm": "", "threads": 1, "direction": "fwd", "cache": "warm", "batch": 1, "dtype": "float32", "kernel": "3x3",
    "in_height": 8, "macs": 36864, "status": "ok", "median_s": 1.0,
    "weak": "", "noise": 0.0, "bias": 0.0,
}  # fmt: skip


def frame(*changes: dict[str, Any]) -> pd.DataFrame:
    """One row for each set of changes to `CASE`."""
    return pd.DataFrame([CASE | change for change in changes])


def case(
    layer: str, backend: str, seconds: float | None, threads: int = 1, batch: int = 1, **more: Any
) -> dict[str, Any]:
    label = f'mb{batch}ic8ih8oc8oh8kh3ph1n"{layer}"'
    status = {"status": "timeout"} if seconds is None else {"median_s": seconds}
    return {"layer": layer, "label": label, "backend": backend, "threads": threads, "batch": batch} | status | more


def title(figure: Any) -> str:
    return " ".join(figure.get_suptitle().split())


THREADS = frame(
    *(case("a", "numba_simd", 6.0 / t, t, count=2) for t in (1, 2, 3)),
    *(case("b", "numba_simd", 1.0, t) for t in (1, 2, 3)),
    case("c", "numba_simd", 9.0, 1), case("c", "numba_simd", None, 2), case("c", "numba_simd", 9.0, 3),
    *(case("a", "numba_direct", 50.0, t, count=2) for t in (1, 2, 3)),
    case("a", "python_loops", 99.0, 1),
    *(case("a", "numba_simd", 1.0, t, direction="bwd_d") for t in (1, 2)),
)  # fmt: skip


def test_efficiency_sums_the_layers_measured_at_every_number_of_threads() -> None:
    rows = thread_efficiency(THREADS)
    mine = rows[(rows.backend == "numba_simd") & (rows.direction == "fwd")]
    assert list(mine.layers) == [2, 2, 2]
    assert list(mine.sum_s) == pytest.approx([13, 7, 5])
    assert list(mine.speedup) == pytest.approx([1, 13 / 7, 13 / 5])
    assert list(mine.efficiency) == pytest.approx([1, 13 / 14, 13 / 15])
    assert "python_loops" not in set(rows.backend)
    assert list(rows[rows.direction == "bwd_d"].threads) == [1, 2]


def test_layers_no_two_of_which_were_measured_alike_have_no_efficiency() -> None:
    assert thread_efficiency(frame(case("a", "b", 1.0, 1), case("c", "b", 1.0, 2))).empty


def test_efficiency_is_relative_to_the_least_number_of_threads() -> None:
    rows = thread_efficiency(frame(case("a", "b", 4.0, 2), case("a", "b", 2.0, 8)))
    assert list(rows.efficiency) == [1.0, 0.5]


def test_one_number_of_threads_has_no_efficiency() -> None:
    assert thread_efficiency(frame({})).empty


def test_the_title_of_threads_states_the_gain_of_the_fastest() -> None:
    figure = sweeps.threads(THREADS, ENVIRONMENT, "net")
    assert title(figure) == "numba_simd runs net 2.60 times as fast with 3 threads as with 1: efficiency 87%"
    (axes,) = figure.axes
    assert {text.get_text() for text in axes.texts} == {"ideal", "numba_simd 87%", "numba_direct 33%"}


def test_every_workload_has_its_own_figure_of_threads() -> None:
    small = [case("a", "scipy_fft", 1.0, t, workload="small") for t in (1, 2)]
    both = pd.concat([frame(*small), THREADS])
    assert "numba_simd runs net" in title(sweeps.threads(both, ENVIRONMENT, "net"))
    assert "scipy_fft runs small 1.00 times as fast" in title(sweeps.threads(both, ENVIRONMENT, "small"))


def test_auto_is_drawn_in_every_sweep() -> None:
    def with_auto(table: pd.DataFrame) -> pd.DataFrame:
        return pd.concat([table, table[table.backend == "numba_simd"].assign(backend="auto", algorithm="numba_simd")])

    figures = [
        sweeps.threads(with_auto(THREADS), ENVIRONMENT, "net"), sweeps.batch(with_auto(BATCH), ENVIRONMENT, "net"),
        sweeps.kernel_sizes(kernels(), ENVIRONMENT),
    ]  # fmt: skip
    for figure in figures:
        assert any(text.get_text().startswith("auto") for axes in figure.axes for text in axes.texts)


def test_kernel_sizes_of_auto_alone_follow_what_it_selected() -> None:
    table = kernels()
    picked = table.layer.str.extract(r" k(\d+) ")[0].map({"3": "numba_winograd_f4"}).fillna("scipy_fft")
    alone = table[table.backend == "auto"].assign(algorithm=picked)
    assert title(sweeps.kernel_sizes(alone, ENVIRONMENT)).startswith("FFT takes over for good at kernel 5 (4-4 @128)")


BATCH = frame(
    *(case(layer, "numba_simd", 3.0 + b, batch=b, count=2) for layer in "ab" for b in (1, 2, 4)),
    *(case(layer, "scipy_fft", 20.0 * b, batch=b) for layer in "ab" for b in (1, 2, 4)),
    *(case("a", "numba_direct", 8.0 * b, batch=b) for b in (1, 2, 4)),
)  # fmt: skip


def test_batch_divides_by_the_images_and_leaves_out_who_misses_layers() -> None:
    figure = sweeps.batch(BATCH, ENVIRONMENT, "net")
    # Two layers, twice each: (3 + 1) * 4 s for one image, (3 + 4) * 4 s for four.
    assert title(figure) == "With numba_simd an image of net is 2.29 times as fast in a batch of 4 as in one of 1"
    (axes,) = figure.axes
    assert [np.asarray(line.get_ydata()).tolist() for line in axes.lines] == [[40.0, 40.0, 40.0], [16.0, 10.0, 7.0]]
    assert {text.get_text() for text in axes.texts} == {"numba_simd", "scipy_fft"}


def test_a_loss_by_batch_is_stated_as_one() -> None:
    figure = sweeps.batch(frame(case("a", "b", 1.0, batch=1), case("a", "b", 4.0, batch=2)), ENVIRONMENT, "net")
    assert "2.00 times as slow in a batch of 2" in title(figure)


def kernels(direct: float = 1.0, winograd: float = 2.0, fft: float = 100.0) -> pd.DataFrame:
    """Times that grow with the kernel's area, Winograd at 3x3 only, and FFT's constant one."""
    rows = []
    for layer in workloads.load("kernel_sizes"):
        k, depthwise = layer.problem.kernel_size[0], layer.problem.groups > 1
        times = {"numba_simd": direct * k * k / (10 if depthwise else 1), "scipy_fft": fft, "auto": 1e-9}
        times |= {"numba_winograd_f4": winograd} if k == 3 and not depthwise else {}
        for backend, seconds in times.items():
            facts = {"workload": "kernel_sizes", "layer": layer.name, "label": layer.problem.label}
            rows.append(facts | {"backend": backend, "median_s": seconds, "macs": layer.problem.macs})
    return frame(*rows)


def test_the_crossings_of_kernel_sizes_are_found() -> None:
    figure = sweeps.kernel_sizes(kernels(), ENVIRONMENT)
    assert title(figure) == "FFT takes over for good at kernel 11 (4-4 @128), 11 (64-64 @56); Winograd leads at 3"
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "4-4 @128: direct from 1, Winograd from 3, direct from 5, FFT from 11",
        "64-64 @56: direct from 1, Winograd from 3, direct from 5, FFT from 11",
        "64-64/64 @112: direct from 1",
    ]


def test_a_method_that_never_leads_is_said_to_never_lead() -> None:
    figure = sweeps.kernel_sizes(kernels(direct=1e-3), ENVIRONMENT)
    assert title(figure) == "FFT never takes over for good; Winograd never leads"


def test_one_series_makes_one_panel() -> None:
    table = kernels()
    assert len(sweeps.kernel_sizes(table[table.layer.str.startswith("4-4 ")], ENVIRONMENT).axes) == 1


def draw(name: str, table: pd.DataFrame) -> Figure:
    """A figure of a sweep; the frames of this module are of the workload net."""
    kind = FIGURES[name]
    return kind.draw(table, ENVIRONMENT, *["net"] * (kind.by == "workload"))


@pytest.mark.parametrize("name", SWEEPS)
@pytest.mark.parametrize("table", [frame({}), frame({"status": "timeout"}), frame({"workload": "kernel_sizes"})])
def test_a_run_without_the_axis_is_told(name: str, table: pd.DataFrame) -> None:
    with pytest.raises(NothingToDraw, match="measured"):
        draw(name, table)


def test_labels_of_equal_ends_do_not_cover_each_other() -> None:
    rows = [case("a", f"backend_{i}", 1.0 / t, t) for i in range(5) for t in (1, 2)]
    figure = sweeps.threads(frame(*rows), ENVIRONMENT, "net")
    figure.draw_without_rendering()
    # Of the text alone, without its arrow.
    boxes = sorted((Text.get_window_extent(text) for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 6
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def weak(table: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    """The table with a reason to be weak in these rows."""
    return table.assign(weak=table.weak.where(~rows, "may be 50% too long"), bias=table.bias.where(~rows, 0.5))


def test_sweeps_mark_what_depends_on_weak_times() -> None:
    figure = sweeps.threads(
        weak(THREADS, (THREADS.backend == "numba_simd") & (THREADS.threads == 3)), ENVIRONMENT, "net"
    )
    assert title(figure) == "numba_simd runs net ~2.60 times as fast with 3 threads as with 1: efficiency ~87%"
    drawn = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(drawn) == ["ideal", "numba_direct 33%", "numba_simd ~87%", "~"]
    assert NOTE in figure.get_supxlabel()

    figure = sweeps.batch(weak(BATCH, (BATCH.backend == "numba_simd") & (BATCH.batch == 1)), ENVIRONMENT, "net")
    assert "is ~2.29 times as fast in a batch of 4" in title(figure)
    assert [text.get_text() for text in figure.axes[0].texts].count("~") == 1
    assert NOTE in figure.get_supxlabel()

    table = kernels()
    figure = sweeps.kernel_sizes(weak(table, table.layer == "4-4 k3 @128"), ENVIRONMENT)
    assert figure.axes[0].get_title(loc="left").startswith("4-4 @128: direct from 1, Winograd from ~3, direct from ~5")
    assert "11 (4-4 @128), 11 (64-64 @56); Winograd leads at 3, ~3" in title(figure)
    assert NOTE in figure.get_supxlabel()

    for name, fine in (("threads", THREADS), ("batch", BATCH), ("kernel_sizes", table)):
        figure = draw(name, fine)
        assert "~" not in title(figure) + figure.get_supxlabel()
        assert all("~" not in text.get_text() for axes in figure.axes for text in axes.texts)
