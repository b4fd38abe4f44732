"""What is accepted, and what every call promises whatever the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arguments import BACKENDS, B, F, P, W, X, locked, misaligned

import conv_impls as ci
from conv_impls import Conv2dProblem
from conv_impls.validation import Array


def able(*problems: Conv2dProblem) -> list[str]:
    """The backends that take all of these problems."""
    return [name for name in BACKENDS if not any(ci.get_backend(name).supports(problem) for problem in problems)]


@pytest.mark.parametrize("argument", ["stride", "dilation"])
@pytest.mark.parametrize("backend", able(P.replace(kernel_size=1, stride=2), P.replace(kernel_size=1, dilation=2)))
def test_a_step_beyond_64_bits_means_the_same_to_every_backend(backend: str, argument: str) -> None:
    arguments: Any = {argument: 2**63}
    y = ci.conv2d(X, W[:, :, :1, :1], groups=2, backend=backend, **arguments)
    np.testing.assert_array_equal(y, np.full((2, 6, 1, 1) if argument == "stride" else (2, 6, 5, 6), 2, F))


SPELLINGS: dict[str, Callable[[Array], Array]] = {
    "read-only": locked,
    "negative strides": lambda a: a[..., ::-1].copy()[..., ::-1],
    "every second element": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "Fortran order": np.asfortranarray,
    "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": misaligned,
    "subclass": lambda a: a.view(np.recarray),
}


@pytest.mark.parametrize("backend", able(P))
@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_any_memory_layout_is_welcome(spell: Callable[[Array], Array], backend: str) -> None:
    x, w, b = (np.arange(a.size, dtype=F).reshape(a.shape) % 7 for a in (X, W, B))
    expected = ci.conv2d(x, w, b, groups=2, backend="python_loops")
    y = ci.conv2d(spell(x), spell(w), spell(b), groups=2, backend=backend)
    np.testing.assert_allclose(y, expected, atol=1e-3)
    assert (type(y), y.dtype) == (np.ndarray, expected.dtype)


@pytest.mark.parametrize("two", [np.int8(2), np.uint64(2), np.array(2), [2, 2], np.array([2, 2]), (np.int32(2), 2)])
def test_numpy_integers_and_lists_will_do_as_arguments(two: Any) -> None:
    counts: Any = {"groups": np.int16(2), "threads": np.int32(1)}
    y = ci.conv2d(X, W, stride=two, padding=two, dilation=two, **counts)
    np.testing.assert_array_equal(y, ci.conv2d(X, W, stride=2, padding=2, dilation=2, groups=2))


def test_numpy_integers_do_not_make_a_problem_wrap_around() -> None:
    big = np.int32(2**16)
    assert Conv2dProblem(big, big, (1, 1), big, (1, 1)).macs == 2**48  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", able(P))
def test_results_are_fresh_and_inputs_untouched(backend: str) -> None:
    arrays = X.copy(), W.copy(), B.copy()
    ready = ci.plan(P, arrays[1], arrays[2], backend=backend)
    results = [ci.conv2d(x, *arrays[1:], groups=2, backend=backend) for x in (arrays[0], arrays[0][0])]
    for y in (*results, ready(arrays[0])):
        assert y.base is None
        assert y.flags.c_contiguous
        assert y.flags.writeable
    for array, before in zip(arrays, (X, W, B), strict=True):
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize("backend", able(P.replace(batch=0), P.replace(in_channels=0), P.replace(out_channels=0)))
@pytest.mark.parametrize(("n", "c", "o"), [(0, 4, 6), (2, 0, 6), (2, 4, 0)])
def test_an_empty_batch_or_channel_axis_leaves_the_bias(n: int, c: int, o: int, backend: str) -> None:
    x, w, b = np.ones((n, c, 5, 6), F), np.ones((o, c // 2, 3, 3), F), np.arange(o, dtype=F)
    for y in (
        ci.conv2d(x, w, b, groups=2, backend=backend),
        ci.plan(Conv2dProblem.from_arrays(x, w, groups=2), w, b, backend=backend)(x),
        ci.conv2d(x, w, b, groups=2, backend=backend, out=np.full((n, o, 3, 4), np.nan, F)),
    ):
        np.testing.assert_array_equal(y, np.broadcast_to(b[:, None, None], (n, o, 3, 4)), strict=True)


@pytest.mark.parametrize("backend", able(Conv2dProblem(1, 4, (5, 6), 4, (3, 3), padding=((1, 1), (1, 1)))))
@pytest.mark.parametrize("shared", ["x", "weight", "bias"])
def test_out_may_overlap_an_input_and_is_the_array_returned(shared: str, backend: str) -> None:
    rng = np.random.default_rng(3)
    inputs = {"x": rng.integers(-4, 5, (4, 5, 6)), "weight": rng.integers(-4, 5, (4, 4, 3, 3)), "bias": np.arange(4)}
    plain: dict[str, Any] = {name: array.astype(F) for name, array in inputs.items()}
    expected = ci.conv2d(**plain, padding=1, backend="python_loops")
    memory = np.zeros(400, F)
    lent = memory[7 : 7 + plain[shared].size].reshape(plain[shared].shape)
    lent[...] = plain[shared]
    out = memory[10:130].reshape(4, 5, 6)
    assert ci.conv2d(**(plain | {shared: lent}), padding=1, backend=backend, out=out) is out
    np.testing.assert_allclose(out, expected, atol=1e-3)
