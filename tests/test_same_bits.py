"""The bits of an output follow from its window: not from where it lies, nor from image size, threads or caches.

For each backend that promises it (``deterministic="output"``): an image is cut at random, slivers of one row and one
column included, and the pieces, put together, have the bits of the whole; so have several threads and, with pretended
caches, other block sizes. What the kernel sees of a piece beyond the image comes by padding per side or is handed over
with the piece. Limits: bits of NaN are not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise, product

import numpy as np
import pytest

from conv_impls import Conv2dProblem, get_backend, register, registry
from conv_impls.backends import _by_tap, _depthwise, numba_depthwise, numba_simd
from conv_impls.backends._layout import effective
from conv_impls.kernels.runtime import target
from conv_impls.kernels.runtime.target import Caches
from conv_impls.padding import NO_PADDING, padded
from conv_impls.registry import Backend, Prepared
from conv_impls.validation import Array

SAME = {"python_loops", "numba_direct", "numba_simd", "numba_depthwise"}
Span = tuple[int, int]


def layer(
    channels: int, outputs: int, kernel: Span, stride: Span = (1, 1), dilation: Span = (1, 1), groups: int = 1,
    mode: str = "zeros", size: Span = (34, 31), dtype: str = "float32",
) -> Conv2dProblem:  # fmt: skip
    """Padding as for an output as large as the image, one more at the top, so that sides differ."""
    sides = tuple(
        (d * (k // 2) + (axis == 0), d * (k // 2)) for axis, (k, d) in enumerate(zip(kernel, dilation, strict=True))
    )
    return Conv2dProblem(2, channels, size, outputs, kernel, stride, sides, dilation, groups, mode, dtype)  # type: ignore[arg-type]


DENSE = [
    layer(19, 21, (3, 3)),
    layer(19, 21, (3, 3), (2, 2), mode="reflect"),
    layer(5, 18, (2, 3), (1, 2), (2, 1), dtype="float64"),
    layer(6, 34, (3, 2), (3, 1), groups=2, mode="circular"),
    layer(40, 17, (1, 1)),
    # Sums of more products than one visit of the accumulators adds, across channels from 1024 on.
    layer(115, 33, (3, 3), size=(17, 15)),
    layer(900, 18, (1, 1), size=(16, 13), dtype="float64"),
]
DEPTHWISE = [
    layer(18, 18, kernel, stride, dilation, groups=18, mode=mode, dtype=dtype)
    for kernel, stride, dilation, mode, dtype in [
        ((3, 3), (1, 1), (1, 1), "zeros", "float32"), ((3, 3), (2, 2), (1, 1), "zeros", "float64"),
        ((3, 3), (1, 1), (1, 1), "reflect", "float64"), ((3, 3), (2, 2), (1, 1), "replicate", "float32"),
        ((3, 3), (2, 1), (1, 1), "zeros", "float32"), ((3, 3), (1, 1), (2, 1), "zeros", "float32"),
        ((3, 3), (2, 2), (2, 2), "zeros", "float32"), ((5, 5), (1, 1), (1, 1), "zeros", "float32"),
        ((5, 5), (2, 2), (1, 1), "zeros", "float32"), ((7, 7), (1, 1), (1, 1), "zeros", "float64"),
        ((7, 7), (2, 2), (1, 1), "circular", "float32"), ((9, 4), (1, 2), (1, 1), "zeros", "float32"),
        ((12, 5), (1, 1), (1, 1), "zeros", "float32"), ((4, 3), (3, 3), (1, 1), "zeros", "float32"),
    ]
]  # fmt: skip
SMALL = [
    layer(40, 3, (3, 3), (1, 2), size=(7, 8)),
    layer(6, 6, (3, 2), groups=3, mode="reflect", size=(9, 7), dtype="float64"),
]
BOTH = [*DENSE, DEPTHWISE[0]]


def packed(
    by_channel: bool, problem: Conv2dProblem, weight: Array, bias: Array, threads: int, relu: bool
) -> Prepared:  # fmt: skip
    """What numba_simd does where it does not go by tap."""
    return numba_simd._prepare(effective(problem), weight, bias, threads, relu, by_channel=by_channel)


Way = str | Callable[..., Prepared]
WAYS: dict[str, Way] = {name: name for name in ("python_loops", "numba_direct", "numba_simd", "numba_depthwise")}
WAYS |= {"numba_simd by position": partial(packed, False), "numba_simd by channel": partial(packed, True)}
PROBLEMS = dict.fromkeys(WAYS, BOTH) | {"python_loops": SMALL, "numba_depthwise": DEPTHWISE}
CASES = [
    pytest.param(WAYS[name], problem, id=f"{name}-{problem.label}")
    for name, problems in PROBLEMS.items()
    for problem in problems
]
EACH = pytest.mark.parametrize(("backend", "problem"), CASES)


def drawn(problem: Conv2dProblem) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(7)
    shapes = problem.input_shape, problem.weight_shape, (problem.out_channels,)
    x, weight, bias = (rng.standard_normal(shape).astype(problem.dtype) for shape in shapes)
    return x, weight, bias


def run(
    backend: Way, problem: Conv2dProblem, x: Array, weight: Array, bias: Array,
    threads: int = 1,
) -> Array:  # fmt: skip
    """One call of a backend, or of what stands in for its ``prepare``, into an output full of NaN."""
    prepare = get_backend(backend).prepare if isinstance(backend, str) else backend
    y = np.full(problem.output_shape, np.nan, problem.dtype)
    prepare(problem, weight, bias, threads, False).call(np.ascontiguousarray(x), y)
    assert not np.isnan(y).any()
    return y


def cuts(length: int, rng: np.random.Generator) -> list[Span]:
    """Spans that make up the length, one of them of one element."""
    at = int(rng.integers(length))
    ends = {0, length, at, at + 1, *rng.integers(1, length + 1, 2).tolist()}
    return list(pairwise(sorted(ends)))


def seen(problem: Conv2dProblem, span: Span, axis: int) -> tuple[slice, Span]:
    """What outputs see of one axis of the image, and how much padding at each side of that."""
    (before, _), size = problem.padding[axis], problem.in_size[axis]
    extent = (problem.kernel_size[axis] - 1) * problem.dilation[axis] + 1
    first = span[0] * problem.stride[axis] - before
    last = (span[1] - 1) * problem.stride[axis] - before + extent
    return slice(max(first, 0), max(min(last, size), 0)), (max(-first, 0), max(last - size, 0))


def piece(problem: Conv2dProblem, x: Array, rows: Span, columns: Span, given: bool) -> tuple[Conv2dProblem, Array]:
    """The problem of these outputs alone, and its image; ``given`` puts the padding into the image."""
    (down, sides_h), (across, sides_w) = seen(problem, rows, 0), seen(problem, columns, 1)
    image, sides = x[:, :, down, across], (sides_h, sides_w)
    if given or problem.padding_mode != "zeros" or 0 in image.shape:
        around = padded(x, problem.padding, problem.padding_mode)
        bare = problem.replace(in_size=problem.padded_size, padding=NO_PADDING, padding_mode="zeros")
        image, sides = around[:, :, seen(bare, rows, 0)[0], seen(bare, columns, 1)[0]], NO_PADDING
    return problem.replace(in_size=image.shape[2:], padding=sides, padding_mode="zeros"), image


def differing(backend: Way, problem: Conv2dProblem, seed: int) -> Iterator[str]:
    """The pieces whose bits are not those of the whole image."""
    x, weight, bias = drawn(problem)
    rng = np.random.default_rng(seed)
    whole = run(backend, problem, x, weight, bias)
    for rows in cuts(problem.out_size[0], rng):
        for columns in cuts(problem.out_size[1], rng):
            part, image = piece(problem, x, rows, columns, bool(rng.integers(2)))
            y = run(backend, part, image, weight, bias, int(rng.integers(1, 4)))
            if not same(y, whole[:, :, slice(*rows), slice(*columns)]):
                yield f"{part.label}: rows {rows}, columns {columns}"


def same(a: Array, b: Array) -> bool:
    """Bit for bit: -0.0 is not 0.0."""
    bits = f"i{a.itemsize}"
    return np.array_equal(np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits))


def test_these_backends_promise_it() -> None:
    assert {name for name in registry.sources() if get_backend(name).deterministic == "output"} == SAME


@EACH
@pytest.mark.parametrize("seeds", [range(1), pytest.param(range(1, 20), marks=pytest.mark.long)], ids=["short", "long"])
def test_pieces_of_an_image_have_the_bits_of_the_whole(backend: Way, problem: Conv2dProblem, seeds: range) -> None:
    for seed in seeds:
        assert list(differing(backend, problem, seed)) == []


@EACH
def test_an_image_of_a_batch_and_every_number_of_threads_give_the_same_bits(
    backend: Way, problem: Conv2dProblem
) -> None:
    x, weight, bias = drawn(problem)
    whole = run(backend, problem, x, weight, bias)
    for threads in (2, 3, 64):
        assert same(run(backend, problem, x, weight, bias, threads), whole)
    assert same(run(backend, problem.replace(batch=1), x[1:], weight, bias), whole[1:])


@EACH
def test_other_caches_change_no_bit(backend: Way, problem: Conv2dProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    given = drawn(problem)
    whole = run(backend, problem, *given)
    for l1, l2, l3 in ((8, 32, 128), (32, 256, 2048), (128, 16384, 131072)):
        pretend(monkeypatch, l1, l2, l3)
        assert same(run(backend, problem, *given), whole)


def pretend(monkeypatch: pytest.MonkeyPatch, *kib: int) -> None:
    """Caches of these many KiB."""
    found = Caches(*(size * 1024 for size in kib))
    monkeypatch.setattr(target, "caches", lambda: found)


@pytest.mark.parametrize("problem", DENSE, ids=lambda problem: problem.label)
def test_numba_simd_has_the_same_bits_along_either_axis_and_by_tap(problem: Conv2dProblem) -> None:
    given = drawn(problem)
    whole = run("numba_simd", problem, *given)
    for by_channel in (False, True):
        assert same(run(partial(_by_tap.prepare, by_channel=by_channel), problem, *given), whole)
    for by_channel, k_block in product((False, True), (100, numba_simd.K_BLOCK)):
        forced = partial(numba_simd._prepare, by_channel=by_channel, k_block=k_block)
        assert same(run(forced, problem, *given), whole)


@pytest.mark.parametrize("problem", DEPTHWISE, ids=lambda problem: problem.label)
def test_numba_depthwise_has_the_same_bits_each_way(problem: Conv2dProblem) -> None:
    given = drawn(problem)
    whole = run("numba_depthwise", problem, *given)
    ways: list[_depthwise.Way] = ["position"]
    ways += ["channel"] if problem.padding_mode == "zeros" and problem.stride[1] <= 2 else []
    ways += ["slide"] if _depthwise.slides(problem) else []
    for way in ways:
        assert same(run(partial(numba_depthwise._prepare, way=way), problem, *given), whole), way


def test_sizes_follow_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workspaces show the sizes of what is kept in a cache."""
    layers = {
        "numba_simd": layer(512, 64, (3, 3), size=(28, 28)), "numba_winograd_f4": layer(64, 64, (3, 3), size=(56, 56)),
        "numba_depthwise": layer(2, 2, (7, 7), groups=2, size=(112, 112)),
    }  # fmt: skip
    found = {}
    for l1, l2 in ((32, 1024), (16, 256)):
        pretend(monkeypatch, l1, l2, 8192)
        for name, problem in layers.items():
            _, weight, bias = drawn(problem)
            found[name, l2] = get_backend(name).prepare(problem, weight, bias, 1).workspace_bytes or 0
    for name in layers:
        assert 0 < found[name, 256] < found[name, 1024]
    pretend(monkeypatch, 32, 1024, 8192)
    # What these sizes were when they were constants.
    assert numba_simd.budgets() == (256 * 2**10, 128 * 2**10, 512 * 2**10, 768 * 2**10)


def test_an_order_that_depends_on_the_image_is_seen(registered: dict[str, Backend]) -> None:
    def by_width(x: Array, weight: Array, bias: Array | None, problem: Conv2dProblem) -> Array:
        turn = -1 if x.shape[-1] < problem.kernel_size[1] + 3 else 1
        return np.asarray(get_backend("python_loops").function(x[:, ::turn], weight[:, ::turn], bias, problem))

    register("by_width", deterministic="output")(by_width)
    assert any(differing("by_width", SMALL[0], seed) for seed in range(3))


def test_the_cut_sees_what_the_whole_saw() -> None:
    x = np.arange(2 * 1 * 5 * 7, dtype="float64").reshape(2, 1, 5, 7)
    problem = Conv2dProblem(2, 1, (5, 7), 1, (3, 2), (2, 1), ((1, 2), (3, 0)))
    part, image = piece(problem, x, (0, 2), (2, 4), False)
    assert (part.padding, part.out_size) == (((1, 0), (1, 0)), (2, 2))
    np.testing.assert_array_equal(image, x[:, :, 0:4, 0:2])
    part, image = piece(problem, x, (0, 2), (2, 4), True)
    assert (part.padding, part.out_size) == (NO_PADDING, (2, 2))
    np.testing.assert_array_equal(image, np.pad(x[:, :, 0:4, 0:2], ((0, 0), (0, 0), (1, 0), (1, 0))))
