"""The memory a backend takes beside the arrays is known before any of it is, and `auto` keeps it within a bound."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import pytest
from scipy import fft

from conv_impls import Conv2dProblem, backends, conv2d, get_backend, plan, register, registry
from conv_impls.backends import _depthwise, auto, scipy_fft
from conv_impls.choice.cost import estimates, workspace_bound

GIB = 2**30
PREDICTED = [name for name in backends() if name != "numba_simd" and get_backend(name).workspace]
# Ways to cut a problem: by rows, by channels, by sliding; one block of tiles and many, staged; one transform and many.
SMALL = [
    "g3mb2ic3ih30iw41oc6oh30ow41kh5kw5ph2pw2", "g40mb1ic40ih9oc40oh9kh3ph1", "g4mb1ic4ih60oc4oh2kh1sh57ph0",
    "g1mb1ic1ih20oc1oh4kh3sh5ph0", "mb3ic17ih30iw7oc5oh30ow7kh3kw3ph1pw1", "mb1ic64ih112oc8oh112kh3ph1",
    'mb1ic8ih30oc9oh30kh3ph1pm"replicate"dt"float64"', "mb1ic2ih90oc3oh76kh15", "mb1ic2ih40oc30oh8kh9dh3",
    'g2mb2ic2ih33iw50oc2oh11ow16kh7kw7sh3sw3ph3pw1dt"float64"', "g2mb1ic8ih30oc10oh15kh7sh2ph3",
    'mb2ic9ih31oc20oh16kh3sh2ph1pm"reflect"', "mb1ic8ih1iw90oc20oh1ow90kh1kw7ph0pw3",
]  # fmt: skip
# Problems of FFT, and the padding of each side. What takes most of a call: the spectra of the image, the result or the
# kernels; of one tile, of many, of many in a row; the padded image, where tiles leave most of it out or go beyond.
TRANSFORMED = {
    "mb2ic64ih40oc8kh3": 1, "mb4ic4ih40oc16kh3": 1, "mb1ic2ih90oc30kh15": 0, "mb8ic3ih90oc4kh15": 0,
    "mb1ic64ih12oc64kh5": 0, "mb1ic2ih40oc30kh9dh3": 0, "mb1ic1ih1iw9000oc4kh1kw3": 0,
    'g4mb3ic16ih40oc16kh5dt"float64"': 60, "mb2ic3ih121oc2kh1sh80": 60, "mb2ic3ih160oc2kh1sh89": 60,
    'mb2ic3ih160oc2kh1sh89pm"replicate"dt"float64"': 60,
}  # fmt: skip
# The whole image in one vector of rows each, kernels that are mostly zeros, long rows: what would take most.
HUGE = {
    "mb1ic1ih47000oc1oh2kh1sh46999": "numba_depthwise", "g4mb1ic4ih3000oc4oh2kh3sh2997": "numba_depthwise",
    "mb1ic1ih1iw10000000oc1oh1ow2kh1kw1sw9999999": "numba_simd", "mb1ic8ih4001oc64oh1kh5dh999": "numba_simd",
    "mb1ic1ih1iw100000000oc1oh1ow100000000kh3kw3ph1pw1": "numba_depthwise",
    "mb1ic2ih1iw50000000oc2oh1ow50000000kh3kw3ph1pw1": "numba_simd",
}  # fmt: skip


@pytest.mark.parametrize("label", SMALL)
@pytest.mark.parametrize("name", PREDICTED)
def test_what_is_predicted_is_what_a_plan_takes(name: str, label: str) -> None:
    problem, backend = Conv2dProblem.from_label(label), get_backend(name)
    if backend.supports(problem) is not None:
        return
    assert backend.workspace
    weight = np.ones(problem.weight_shape, problem.dtype)
    # The kernels of FFT, spread by their dilation, are no part of what each call takes.
    extent = [d * (k - 1) + 1 for d, k in zip(problem.dilation, problem.kernel_size, strict=True)]
    spread = prod((*problem.weight_shape[:2], *extent)) * problem.itemsize if name == "scipy_fft" else 0
    for threads in (1, 2):
        taken = plan(problem, weight, backend=name, threads=threads).workspace_bytes
        assert taken is not None
        assert backend.workspace(problem, threads) == taken + spread


@pytest.mark.parametrize("kept", [True, False], ids=["kernels kept", "kernels at each call, in blocks"])
@pytest.mark.parametrize(("label", "padding"), TRANSFORMED.items(), ids=TRANSFORMED)
def test_a_call_of_fft_takes_what_is_predicted(
    label: str, padding: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inverse = fft.irfft2

    def seen_whole(spectra: Any, *arguments: Any, **how: Any) -> Any:
        """SciPy copies them to memory of its own, which tracemalloc does not see."""
        copied = np.empty_like(spectra)
        result = inverse(spectra, *arguments, **how)
        del copied
        return result

    monkeypatch.setattr(fft, "irfft2", seen_whole)
    if not kept:
        monkeypatch.setattr(scipy_fft, "KEPT_BYTES", 0)
        monkeypatch.setattr(scipy_fft, "BLOCK_BYTES", 2**19)
    problem = Conv2dProblem.from_label(label).replace(padding=((padding, padding), (padding, padding)))
    ready = plan(problem, np.ones(problem.weight_shape, problem.dtype), backend="scipy_fft", threads=1)
    x, out = (np.ones(shape, problem.dtype) for shape in (problem.input_shape, problem.output_shape))
    ready(x, out=out)
    tracemalloc.start()
    ready(x, out=out)
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken == pytest.approx(ready.workspace_bytes, rel=0.01, abs=4096)


def test_backends_that_cut_problems_in_ways_of_their_own_predict_their_memory() -> None:
    problem = Conv2dProblem.from_label("mb1ic32ih64oc32oh64kh7ph3")
    assert set(estimates(problem, 1, False)) - set(PREDICTED) == {"numba_simd"}


@pytest.mark.parametrize(("label", "name"), HUGE.items(), ids=HUGE)
def test_auto_takes_none_that_would_need_too_much(label: str, name: str) -> None:
    problem = Conv2dProblem.from_label(label)
    for precision in ("standard", "strict"):
        for eager in (False, True):
            assert auto.choose(problem, precision, 2, eager) == name
            for each in auto.candidates(problem, precision, 2, eager):
                predicted = get_backend(each).workspace
                assert predicted is None or predicted(problem, 2) <= workspace_bound(problem)


def test_the_bound_leaves_out_who_would_be_fastest(registered: dict[str, registry.Backend]) -> None:
    problem = Conv2dProblem.from_label("mb1ic64ih28oc64oh28kh3ph1")
    fastest = auto.choose(problem, "standard", 1, False)
    assert fastest != "numba_simd"
    for more, expected in ((0, True), (1, False)):
        taken = workspace_bound(problem) + more
        registered[fastest] = replace(get_backend(fastest), workspace=partial(lambda n, problem, threads: n, taken))
        assert (auto.choose(problem, "standard", 1, False) == fastest) is expected


def test_a_stride_as_long_as_the_image_stages_few_rows() -> None:
    predicted = get_backend("numba_depthwise").workspace
    assert predicted
    # It was 264 GiB for each thread.
    assert predicted(Conv2dProblem.from_label("mb1ic1ih47000oc1oh2kh1sh46999"), 1) < 0.01 * GIB
    problem = Conv2dProblem.from_label("mb1ic1ih400oc1oh2kh3sh397")
    x, weight = np.arange(160_000.0).reshape(problem.input_shape), np.arange(9.0).reshape(1, 1, 3, 3)
    y = conv2d(x, weight, stride=397, backend="numba_depthwise")
    assert np.array_equal(y, conv2d(x, weight, stride=397, backend="numpy_strided"))


@pytest.mark.parametrize("precision", ["standard", "strict"])
@pytest.mark.parametrize("groups", [1, 32])
def test_an_empty_batch_needs_no_prediction(groups: int, precision: str) -> None:
    x, weight = np.zeros((0, 32, 20, 20), "f4"), np.ones((32, 32 // groups, 3, 3), "f4")
    y = conv2d(x, weight, groups=groups, padding=1, threads=2, precision=precision)
    assert y.shape == (0, 32, 20, 20)


def test_rows_under_a_dilated_kernel_are_not_staged_for_each_row_of_the_result() -> None:
    problem = Conv2dProblem(1, 8, (700, 700), 8, (3, 3), dilation=(300, 300), groups=8)
    cut = _depthwise.position_cut(problem, 8, 16 * 2**10)
    staged = cut.bands * (-(-problem.out_size[0] // cut.bands) + 600)
    assert staged <= 2 * 700


def test_threads_without_a_task_get_no_workspace() -> None:
    problem = Conv2dProblem.from_label("g2mb1ic2ih7oc2oh7kh3ph1")
    predicted = get_backend("numba_depthwise").workspace
    assert predicted
    cut = _depthwise.position_cut(problem, 8, 2**14)
    assert cut.tasks == 2
    assert predicted(problem, 64) <= 64 * predicted(problem, 1)
    taken = plan(problem, np.ones(problem.weight_shape, "f4"), backend="numba_depthwise", threads=2).workspace_bytes
    assert taken == predicted(problem, 2)


def test_a_backend_without_a_prediction_has_none(registered: dict[str, registry.Backend]) -> None:
    @register("plain")
    def run(x: Any, weight: Any, bias: Any, problem: Any) -> Any:
        return None

    assert get_backend("plain").workspace is None
