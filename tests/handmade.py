"""A small run whose every figure can be worked out by hand: what the tests of claims calculate from.

Three layers that a network has once, three times and twice, on one thread and on two, and one of another network; two
other libraries; planned and eager backends. A case has eight turns in two repetitions, all of its time in `ONE`, `TWO`
or `OTHER`, but for `SPREAD`. The numbers are chosen so that a mistake shows: no two orders, sums or ratios that one
could take for another are equal.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from msgspec.structs import replace
from records import record

from bench.analysis.frame import frame
from bench.store.records import Case, Record, Status

# Operations: 2 * 100*10*10 * 50*3*3 = 9e6, 2 * 50*20*20 * 100 = 4e6, 2 * 100*10*10 * 40*2*2 = 3.2e6.
LABELS = {
    "stem": 'mb1ic50ih10oc100oh10kh3ph1n"stem"',
    "body": 'mb1ic100ih20oc50oh20kh1n"body"',
    "tail": 'mb1ic40ih20oc100oh10kh2sh2n"tail"',
}
COUNTS = {"stem": 1, "body": 3, "tail": 2}
# Milliseconds of a call, or how the case ended; None where nobody asked for it. Stem, body, tail.
Ending = float | Status | None
Times = dict[str, tuple[Ending, Ending, Ending]]
ONE: Times = {
    "python_loops": (630.0, 220.0, "over_budget"),
    # Right in the first repetition only: much faster than all others, and never to be ranked.
    "numpy_im2col": (0.1, 0.1, 0.1),
    "numpy_strided": (20.0, 8.0, 30.0),
    "numba_direct": (9.0, 2.6, 5.0),
    "numba_simd": (7.0, 2.2, 4.2),
    "numba_winograd_f4": (4.2, 6.0, 3.0),
    "numba_winograd_f6": (3.0, "unsupported", 2.0),
    "numba_depthwise": (None, None, 4.5),
    "auto": (4.0, 2.5, 4.0),
    "auto_strict": (8.0, 1.0, 13.0),
    "auto_eager": (5.0, 4.0, 3.0),
    "torch_nchw": (12.0, 2.0, 9.0),
    "onnxruntime": (6.0, 5.0, 7.0),
}
TWO: Times = {
    "numba_direct": (3.0, 2.0, 4.0),
    "numba_simd": (4.0, 1.2, 2.6),
    "auto": (3.8, 1.2, 2.5),
    "auto_eager": (2.0, None, None),
    "torch_nchw": (5.0, 1.8, 6.0),
    "onnxruntime": (4.0, 3.0, 3.5),
}
# Another network, with one layer of the same name, which it has twice: one thread.
OTHER = {"numba_simd": 41.0, "auto": 40.0, "torch_nchw": 60.0, "onnxruntime": 50.0}
EAGER = ("python_loops", "numpy_im2col", "numpy_strided", "auto_eager", "torch_nchw")
# What auto hands each layer to, by number of threads. Its own time and that of its choice differ a little.
PICKS = {1: ("numba_winograd_f4", "numba_direct", "numba_simd"), 2: ("numba_simd",) * 3}
# Turns in ms of two cases of the first network, by repetition. Of the first, the median is 12, the mean 12.25, and the
# medians of the repetitions are 11.5 and 13.
SPREAD = {
    ("torch_nchw", "stem", 1): ([10.0, 11.0, 12.0, 12.0], [12.0, 12.0, 14.0, 15.0]),
    ("onnxruntime", "stem", 1): ([5.5, 6.0, 6.0, 6.0], [6.0, 6.0, 6.5, 7.0]),
}
# Seconds of compiling in the first repetition, seconds of preparing: stem, body, tail. Nothing for the others.
COMPILE_S = {"auto": (2.0, 1.0, 0.5), "auto_eager": (0.5, 0.0, 0.0), "numba_simd": (1.0, 0.0, 0.0)}
PREPARE_S = {"auto": (0.1, 0.2, 0.4), "numba_simd": (0.01, 0.002, 0.002), "onnxruntime": (0.006, 0.003, 0.0015)}
MIB = 2**20
# Facts of single cases on one thread.
FACTS: dict[tuple[str, str], dict[str, Any]] = {
    ("auto", "stem"): {
        "packed_bytes": 1 * MIB, "workspace_bytes": 8 * MIB, "peak_bytes": 10 * MIB, "executed_flops": 3.6e6,
        "fma_peak_gflops": 2.0,
    },
    ("auto", "body"): {"packed_bytes": 2 * MIB, "workspace_bytes": 3 * MIB, "peak_bytes": 30 * MIB},
    ("auto", "tail"): {"packed_bytes": 4 * MIB, "workspace_bytes": 5 * MIB, "peak_bytes": 20 * MIB},
    ("onnxruntime", "stem"): {"disturbed_s": [9e-3, 30e-3]},
}  # fmt: skip
# A machine under whose roof they were measured.
MACHINE = {
    "by_threads": [{"threads": t, "fma_float32_gflops": 2.0 * t, "fma_float64_gflops": 1.0 * t} for t in (1, 2)],
    "by_level": [
        {"level": "L1", "threads": 1, "read_gb_per_s": 9.0},
        {"level": "L3", "threads": 1, "read_gb_per_s": 0.06},
        {"level": "memory", "threads": 1, "read_gb_per_s": 0.03},
        {"level": "L1", "threads": 2, "read_gb_per_s": 18.0},
        {"level": "L3", "threads": 2, "read_gb_per_s": 0.25},
        {"level": "memory", "threads": 2, "read_gb_per_s": 0.1},
    ],
}


def records(one: Times = ONE) -> list[Record]:
    """All of the run, in the order in which it was measured; ``one`` are the times on one thread."""
    network = [
        (Case("resnet50", layer, label, COUNTS[layer], backend, threads, repetition=repetition), times[place])
        for repetition in (1, 2)
        for place, (layer, label) in enumerate(LABELS.items())
        for threads, every in ((1, one), (2, TWO))
        for backend, times in every.items()
        if times[place] is not None
    ]
    other = [
        (Case("vgg16", "stem", LABELS["stem"], 2, backend, 1, repetition=repetition), time_ms)
        for repetition in (1, 2)
        for backend, time_ms in OTHER.items()
    ]
    return [_record(case, time_ms) for case, time_ms in network + other]


def table(one: Times = ONE) -> pd.DataFrame:
    """The run as `bench.analysis.frame.frame` makes it."""
    return frame(records(one))


def _record(case: Case, time_ms: Ending) -> Record:
    backend, first, place = case.backend, case.repetition == 1, list(LABELS).index(case.layer)
    where = backend, case.layer, case.threads
    if isinstance(time_ms, str):
        return Record(case, time_ms, "because", "e", estimate_s=9.0)
    if backend == "numpy_im2col" and not first:
        return Record(case, "wrong_result", "off by 1", "e", error=0.5, error_over_bound=7.0)
    alone = case.workload == "resnet50"
    assert time_ms is not None
    turns_ms = SPREAD[where][case.repetition - 1] if alone and where in SPREAD else [time_ms] * 4
    turns = [1e-3 * time_ms for time_ms in turns_ms]
    made = record(
        backend, case.layer, tuple(turns), mode="eager" if backend in EAGER else "planned",
        algorithm=PICKS[case.threads][place] if backend == "auto" else "its own",
        compile_s=COMPILE_S.get(backend, (0.0,) * 3)[place] if first else 0.0,
        prepare_s=PREPARE_S.get(backend, (0.0,) * 3)[place],
        # The second repetition took three times the samples; of the first one's, half were stalled.
        samples_s=turns * (1 if first else 3), stalled_share=0.5 if first else 0.0,
        error=1e-6 if first else 3e-6, error_over_bound=0.1 * case.threads,
        **(FACTS.get((backend, case.layer), {}) if alone and case.threads == 1 else {}),
    )  # fmt: skip
    return replace(made, case=case)
