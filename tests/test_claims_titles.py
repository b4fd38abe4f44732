"""The rules that make the titles of figures, on frames made by hand: ties, weak numbers, one backend, ours slower."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bench.report import accuracy, filters, headline, heatmap, layers, roofline, sizes, sweeps, words
from bench.report.words import CLOSE, FASTER, SLOWER
from conv_impls import KERNELS


def relative(*rows: tuple[str, str, float, float], weak: tuple[str, ...] = (), library: bool = True) -> pd.DataFrame:
    """Rows (network, backend, relative, half of the interval); onnxruntime has 1 if it is a library."""
    return pd.DataFrame([
        {
            "network": network, "backend": backend, "relative": time, "low": time - half, "high": time + half,
            "mode": "planned", "sum_s": time, "weak": network in weak, "library": library, "layers": 3, "measured": 3,
        }
        for network, backend, time, half in rows
    ])  # fmt: skip


def against(*autos: tuple[float, float], weak: tuple[str, ...] = ()) -> str:
    """The headline of networks a, b, ... on which auto takes these times of the best library."""
    rows = [
        (name, backend, *time)
        for name, auto in zip("abcd", autos, strict=False)
        for backend, time in (("onnxruntime", (1.0, 0.0)), ("auto", auto), ("numba_simd", (0.1, 0.0)))
    ]
    return headline.title(relative(*rows, weak=weak))


def test_the_headline_counts_by_intervals_and_the_most_frequent_verdict_comes_first() -> None:
    assert against((0.5, 0.1), (0.8, 0.1)) == (
        "auto is faster than the best library on 2 of 2 networks: 1.25 to 2.00 times as fast"
    )
    assert against((1.25, 0.1), (2.0, 0.1), (0.5, 0.1)) == (
        "auto is slower than the best library on 2 of 3 networks, faster on 1: 0.50 to 2.00 times as fast"
    )
    # The interval contains 1: neither faster nor slower.
    assert against((0.8, 0.3), (1.25, 0.3), (0.5, 0.1)) == (
        "auto is about as fast as the best library on 2 of 3 networks, faster on 1: 0.80 to 2.00 times as fast"
    )
    assert against((0.5, 0.1)) == "auto is faster than the best library on a: 2.00 times as fast"
    assert against((1.25, 0.1)) == "auto is slower than the best library on a: 0.80 times as fast"


def test_the_headline_marks_weak_networks() -> None:
    text = against((0.5, 0.1), (0.8, 0.1), weak=("b",))
    assert text == "auto is faster than the best library on ~2 of 2 networks: ~1.25 to 2.00 times as fast"


def test_the_headline_without_auto_is_about_the_fastest_of_ours() -> None:
    rows = relative(("a", "onnxruntime", 1, 0), ("a", "numba_simd", 0.5, 0.1), ("a", "mine", 0.8, 0.1))
    assert headline.title(rows) == "numba_simd is faster than the best library on a: 2.00 times as fast"
    two = relative(*[("b", "onnxruntime", 1, 0), ("b", "mine", 0.5, 0.1)])
    assert headline.title(pd.concat([rows, two], ignore_index=True)).startswith("The fastest of ours is faster than")


def test_the_headline_without_libraries_or_without_ours_names_the_fastest() -> None:
    rows = [("a", "auto", 1, 0), ("a", "mine", 1.2, 0.1), ("b", "auto", 1.1, 0.2), ("b", "mine", 1, 0)]
    rows += [("c", "auto", 1, 0), ("c", "mine", 1.1, 0.2)]
    text = headline.title(relative(*rows, library=False))
    assert text == "auto takes the least time on 2 of 3 networks; another is about as fast on 1 of them"
    libraries = relative(("a", "onnxruntime", 1, 0), ("a", "jax", 2, 0.1))
    assert headline.title(libraries) == "onnxruntime takes the least time on a"
    # One network each: the first by name, whatever the order of the rows.
    tie = [("a", "x", 1, 0), ("a", "y", 2, 0.1), ("b", "y", 1, 0), ("b", "x", 2, 0.1)]
    for order in (tie, tie[::-1]):
        assert headline.title(relative(*order, library=False)) == "x takes the least time on 1 of 2 networks"
    assert (
        headline.title(relative(("a", "x", 1, 0), library=False)) == "x is the only backend that measured all of a: 1 s"
    )


def test_verdicts_need_the_whole_interval() -> None:
    low, high = pd.Series([1.01, 0.5, 0.99, 1.0]), pd.Series([1.2, 0.99, 1.01, 1.0])
    assert list(words.verdicts(low, high)) == [FASTER, SLOWER, CLOSE, CLOSE]


def layer_rows(*rows: tuple[str, str, float, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["layer", "verdict", "share", "weak"])


def test_the_title_of_layers_counts_layers_and_adds_their_shares_of_time() -> None:
    rows = layer_rows(("a", FASTER, 0.5, False), ("b", SLOWER, 0.3, False), ("c", SLOWER, 0.2, False))
    assert layers.title(rows, "net", "auto", "the best library") == (
        "net: auto is slower than the best library on 2 of 3 layers, faster on 1 (faster for 50% and slower for 50% of "
        "its time)"
    )
    weak = layer_rows(("a", FASTER, 0.5, True), ("b", CLOSE, 0.5, False))
    assert layers.title(weak, "net", "x", "y") == (
        "net: x is faster than y on ~1 of 2 layers, about as fast on 1 (faster for ~50% of its time)"
    )
    assert layers.title(rows.head(1), "net", "x", "y") == "net: x is faster than y on layer a"
    even = layer_rows(("a", CLOSE, 0.5, False), ("b", CLOSE, 0.5, False))
    assert layers.title(even, "net", "x", "y") == "net: x is about as fast as y on 2 of 2 layers"


def test_the_title_of_shares_names_the_longest_layer_and_counts_half_of_the_time() -> None:
    time = pd.Series({"a": 1.0, "b": 4.0, "c": 3.0, "d": 2.0})
    assert layers.shares_title(time, "net", "auto", False) == (
        "net: b takes 40% of the time of auto; 2 of 4 layers take half of it"
    )
    # The first of two that take as long; together they take half.
    tie = pd.Series({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0})
    assert (
        layers.shares_title(tie, "net", "x", True)
        == "net: a takes ~25% of the time of x; 2 of 4 layers take half of it"
    )
    assert layers.shares_title(time[["b", "c"]] * [2, 1], "net", "x", False) == (
        "net: b takes 73% of the time of x, at least half of it"
    )
    assert layers.shares_title(time[["b"]], "net", "x", True) == "net: its only layer takes ~4 s with x"


def shares(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_the_title_of_the_heat_map_counts_who_comes_close_to_the_fastest() -> None:
    def title(share: pd.DataFrame, *weak: str) -> str:
        doubt = pd.DataFrame({name: [name in weak] * len(share) for name in share})
        return heatmap.title(share, doubt, "net")

    # 90% counts, 89% does not: a lead of a few percent on most layers is no lead.
    share = shares(auto=[0.95, 0.9, 1.0], x=[1.0, 1.0, 0.89], y=[0.1, 0.2, 0.3])
    assert title(share) == "net: auto reaches 90% of the fastest on 3 of 3 layers, more than x (2)"
    assert title(share.rename(columns={"auto": "x", "x": "auto"})) == (
        "net: auto reaches 90% of the fastest on 2 of 3 layers, fewer than x (3)"
    )
    assert title(shares(auto=[1.0, 1.0], x=[0.9, 0.95])) == (
        "net: auto reaches 90% of the fastest on 2 of 2 layers, as many as x"
    )
    assert (
        title(share.drop(columns="auto"), "x") == "net: x reaches 90% of the fastest on ~2 of 3 layers, more than y (0)"
    )


def reached(*rows: tuple[float, bool, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["of_roof", "fewer", "weak"])


def test_the_title_of_the_roofline_counts_layers_of_all_workloads() -> None:
    first = reached((0.85, False, ""), (0.84, False, ""), (1.5, True, ""))
    assert roofline.title({"net": first}) == (
        "net: 2 of 3 layers reach 85% of the machine's roof, 1 of them by doing fewer operations"
    )
    second = reached((0.1, True, "why"))
    assert roofline.title({"net": first, "other": second}) == (
        "~2 of 4 layers of 2 workloads reach 85% of the machine's roof, 1 of them by doing fewer operations"
    )
    assert roofline.title({"other": second}) == "other: ~0 of 1 layers reach 85% of the machine's roof"


def test_a_workload_that_the_memory_limits_is_next_to_the_first_network() -> None:
    def of(*intensity: float) -> pd.DataFrame:
        return pd.DataFrame({"intensity": intensity})

    found = {"sizes": of(0.1), "dense": of(50, 9), "other": of(8), "thin": of(60, 0.5)}
    assert roofline.order(found, ["dense", "other", "thin"]) == ["dense", "sizes", "other", "thin"]
    del found["sizes"]
    assert roofline.order(found, ["dense", "other", "thin"]) == ["dense", "thin", "other"]
    assert roofline.order({"x": of(1)}, []) == ["x"]


def test_the_title_of_errors_names_the_largest_and_counts_those_beyond_the_bound() -> None:
    part = pd.DataFrame({
        "backend": ["x", "y"], "workload": "net", "layer": ["a", "b"], "error_over_bound": [0.25, 0.5],
    })  # fmt: skip
    assert accuracy.title(part) == "All 2 results are within the error bound: at most 0.500 of it (y, net b)"
    assert accuracy.title(part.head(1)) == "The only result is within the error bound: at most 0.250 of it (x, net a)"
    beyond = part.assign(error_over_bound=[1.5, 0.5])
    assert accuracy.title(beyond) == "1 of 2 results exceed their error bound: up to 1.50 times (x, net a)"


def test_the_title_of_sizes_compares_with_the_next_that_auto_does_not_select() -> None:
    def title(**times: float) -> str:
        rows = [{"backend": name, "in_height": 32, "median_s": time, "weak": ""} for name, time in times.items()]
        return sizes.title(pd.DataFrame([*rows, {"backend": "z", "in_height": 16, "median_s": 0.1, "weak": ""}]), 64)

    assert title(x=2.0, y=3.0) == "At 32 pixels and 64 channels x takes 2 s; y takes 1.50 times as long"
    # numba_winograd only selects a backend, as auto does.
    text = title(auto=2.0, numba_winograd=2.0, numba_simd=5.0)
    assert text == "At 32 pixels and 64 channels auto takes 2 s; numba_simd takes 2.50 times as long"
    assert title(auto=3.0, onnxruntime=2.0).endswith("onnxruntime takes 2 s; auto takes 1.50 times as long")
    assert title(x=2.0) == "At 32 pixels and 64 channels x takes 2 s"
    assert title(b=2.0, a=2.0) == "At 32 pixels and 64 channels a takes 2 s; b takes 1.00 times as long"


def scaled(*rows: tuple[str, int, float, int], weak: bool = False) -> pd.DataFrame:
    """Rows (backend, threads, sum_s, layers)."""
    table = pd.DataFrame(rows, columns=["backend", "threads", "sum_s", "layers"])
    base = table.groupby("backend").sum_s.transform("first")
    gain = base / table.sum_s
    return table.assign(workload="net", speedup=gain, efficiency=gain / table.threads, weak=weak)


def test_the_title_of_threads_is_about_auto_or_the_fastest_of_ours() -> None:
    rows = [("mine", 1, 4.0, 3), ("mine", 2, 2.5, 3), ("auto", 1, 6.0, 3), ("auto", 2, 3.0, 3)]
    rows += [("part", 1, 0.2, 1), ("part", 2, 0.2, 1), ("jax", 1, 1.0, 3), ("jax", 2, 0.5, 3)]
    assert sweeps.threads_title(scaled(*rows)) == (
        "auto runs net 2.00 times as fast with 2 threads as with 1: efficiency 100%"
    )
    assert sweeps.threads_title(scaled(*rows[:2], *rows[4:], weak=True)).startswith("mine runs net ~1.60 times as fast")
    assert sweeps.threads_title(scaled(*rows[-2:])).startswith("jax runs net 2.00 times")


def test_the_title_of_batch_states_a_loss_as_one() -> None:
    def images(*seconds: float, weak: bool = False) -> pd.DataFrame:
        return pd.DataFrame({"image_s": seconds, "weak": weak}, index=[1, 8][: len(seconds)])

    found = {"mine": images(4.0, 1.0), "auto": images(2.0, 4.0)}
    assert sweeps.batch_title(found, "net") == (
        "With auto an image of net is 2.00 times as slow in a batch of 8 as in one of 1", False,
    )  # fmt: skip
    text, weak = sweeps.batch_title({"x": images(3.0, 3.0), "y": images(4.0, 1.0, weak=True)}, "net")
    assert text == "With y an image of net is ~4.00 times as fast in a batch of 8 as in one of 1"
    assert weak


@pytest.mark.parametrize("method", ["direct", "Winograd"])
def test_the_title_of_kernel_sizes_follows_the_leaders(method: str) -> None:
    leads = {"s": [sweeps.Lead(method, 1, 3, False), sweeps.Lead("FFT", 5, 9, True)]}
    where = "Winograd leads at 1 to 3" if method == "Winograd" else "Winograd never leads"
    assert sweeps.kernel_title(leads) == f"FFT takes over for good at kernel ~5 (s); {where}"
    assert sweeps.kernel_title({"s": leads["s"][:1]}).startswith("FFT never takes over for good")


def test_the_title_of_filters_counts_the_kernels_that_sum_to_0(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels: dict[str, Any] = {name: KERNELS[name] for name in ("identity", "sobel_x", "laplacian")}
    monkeypatch.setattr(filters, "KERNELS", kernels)
    assert filters.title() == "One convolution, 3 kernels: 2 turn flat areas to 0, 1 keep them"
