"""What the page of `bench/contention.py` claims, against figures worked out by hand; and files that are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.analysis.contention import against, read, slowdowns
from bench.report.contention import page
from bench.store.records import StoreError

# Mean calls of three trials, in microseconds. Ratios of medians would be others than medians of ratios.
MEANS_US: dict[tuple[str, str, int], list[float]] = {
    ("small", "auto", 0): [100, 200, 110],
    ("small", "auto", 1): [150, 220, 330],  # x 1.5, 1.1, 3.0
    ("small", "auto", 2): [200, 500, 231],  # x 2.0, 2.5, 2.1
    ("small", "onnxruntime", 0): [100, 250, 100],  # auto / onnxruntime: 1.0, 0.8, 1.1
    ("small", "onnxruntime", 1): [300, 200, 264],  # 0.5, 1.1, 1.25
    ("small", "onnxruntime", 2): [250, 400, 308],  # 0.8, 1.25, 0.75
    ("large", "auto", 0): [4000, 5000, 8000],
    ("large", "auto", 1): [6000, 5000, 8000],  # x 1.5, 1.0, 1.0
    ("large", "auto", 2): [8000, 4000, 8000],  # x 2.0, 0.8, 1.0
}
LEFT_OUT = {"layer": "large", "engine": "onnxruntime", "reason": "crashed: SIGABRT <here>"}
ENVIRONMENT = {
    "cpu": "a CPU",
    "cores": 2,
    "load_1min": 1.5,
    "packages": {"onnxruntime": "1.2.3"},
    "warnings": ["it is hot"],
}


def document(means_us: dict[tuple[str, str, int], list[float]] | None = None, **facts: Any) -> bytes:
    made = {"environment": ENVIRONMENT, "seconds": 10.0, "threads": 2, "left_out": [LEFT_OUT]} | facts
    benchmarks = [
        {
            "extra_info": {"layer": layer, "engine": engine, "busy": busy}, "name": "ignored",
            "stats": {"data": [1e-6 * mean for mean in means], "median": 0},
        }
        for (layer, engine, busy), means in (MEANS_US if means_us is None else means_us).items()
    ]  # fmt: skip
    return json.dumps({"benchmarks": benchmarks, "contention": made, "machine_info": {}}).encode()


def test_a_slowdown_is_the_median_of_the_ratios_of_each_trial() -> None:
    rows = slowdowns(read(document())).to_dict("records")
    assert [row.pop("quiet (us)") for row in rows] == pytest.approx([110, 100, 5000])
    assert rows == [
        {
            "layer": "small", "engine": "auto",
            "x with 1 busy": "1.50 (1.10 to 3.00)", "x with 2 busy": "2.10 (2.00 to 2.50)",
        },
        {
            "layer": "small", "engine": "onnxruntime",
            "x with 1 busy": "2.64 (0.80 to 3.00)", "x with 2 busy": "2.50 (1.60 to 3.08)",
        },
        {
            "layer": "large", "engine": "auto",
            "x with 1 busy": "1.00 (1.00 to 1.50)", "x with 2 busy": "1.00 (0.80 to 2.00)",
        },
    ]  # fmt: skip


def test_two_engines_are_compared_trial_by_trial_where_both_have_times() -> None:
    table = against(read(document()), "auto", "onnxruntime")
    assert table.columns.tolist() == [
        "layer", "busy", "auto (us)", "onnxruntime (us)", "auto / onnxruntime", "auto not slower in",
    ]  # fmt: skip
    numbers = [row[:4] for row in table.itertuples(index=False)]
    assert [row[:2] for row in numbers] == [("small", 0), ("small", 1), ("small", 2)]
    assert [row[2:] for row in numbers] == [pytest.approx(pair) for pair in ((110, 100), (220, 264), (231, 308))]
    # Equal means are not slower.
    assert [tuple(row[4:]) for row in table.itertuples(index=False)] == [
        ("1.00 (0.80 to 1.10)", "2 of 3 trials"),
        ("1.10 (0.50 to 1.25)", "1 of 3 trials"),
        ("0.80 (0.75 to 1.25)", "2 of 3 trials"),
    ]


def test_an_engine_without_quiet_times_has_no_slowdown() -> None:
    means = {key: means for key, means in MEANS_US.items() if key != ("small", "auto", 0)}
    engines = slowdowns(read(document(means))).engine.tolist()
    assert engines == ["onnxruntime", "auto"]


def test_a_number_of_busy_processes_that_was_left_out_is_an_empty_cell() -> None:
    means = {key: means for key, means in MEANS_US.items() if key != ("large", "auto", 1)}
    assert slowdowns(read(document(means)))["x with 1 busy"].tolist()[-1] == ""


def test_the_page_states_how_it_was_measured_and_what_has_no_times() -> None:
    text = page(read(document()))
    assert "a CPU, 2 cores; onnxruntime 1.2.3." in text
    assert "Warning: it is hot." in text
    assert "Load of the machine in the minute before: 1.50." in text
    assert "2 threads on 2 cores, median of 3 trials of 10 s." in text
    # Two threads and one busy process on two cores: 2/3 of a core each, so 1.5 times as long.
    assert "it is 1.50 with 1 busy, 2.00 with 2 busy." in text
    assert "## auto and onnxruntime" in text
    assert "- onnxruntime, large: crashed: SIGABRT &lt;here&gt;" in text


def test_the_page_of_our_engine_alone_compares_nothing() -> None:
    means = {key: [means[0]] for key, means in MEANS_US.items() if key[1] == "auto"}
    text = page(read(document(means, threads=4, left_out=[])))
    assert "4 threads on 4 cores, median of 1 trial of 10 s." in text
    assert "it is 1.25 with 1 busy, 1.50 with 2 busy." in text
    assert "##" not in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected the JSON of bench/contention.py: "), (b"\xff", "expected the JSON"), (b"[]", "`object`"),
        (b'{"benchmarks": []}', "length >= 1"), (document({}), "length >= 1"),
        (document().replace(b'"engine"', b'"backend"'), "missing required field `engine`"),
        (document().replace(b'"contention"', b'"else"'), "missing required field `contention`"),
        (document({("l", "auto", 0): []}), "length >= 1"), (document({("l", "auto", 0): [0]}), "> 0"),
        (document({("l", "auto", -1): [1]}), ">= 0"),
        (document({("l", "auto", 0): [1, 2], ("l", "auto", 1): [1]}), "expected as many trials"),
    ],
)  # fmt: skip
def test_another_file_is_refused_in_words(content: bytes, said: str) -> None:
    with pytest.raises(StoreError) as refused:
        read(content)
    assert said in str(refused.value)


def test_times_that_come_twice_are_refused() -> None:
    content = json.loads(document())
    content["benchmarks"] *= 2
    with pytest.raises(StoreError, match="each once"):
        read(json.dumps(content).encode())
