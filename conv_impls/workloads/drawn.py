"""`random:N:SEED`: N random layers, similar to those of networks, to test regret, correctness and speed.

Each layer is drawn by these steps. A number before a value is its weight; values without a number have equal weights.

    kind       30 pointwise (1x1), 24 dense (3x3), 15 depthwise, 7 grouped, 7 dilated (3x3), 7 large or oblong kernel,
               7 first layer (1, 3 or 4 channels in), 3 on one pixel (squeeze-and-excitation)
    image      one of four stages, each with the sides and channels typical for networks (`STAGES`); 4 of 5 are
               square; otherwise the width is one of the stage's sides from half to twice the height
    channels   in and out from the stage; out equals in for 1 of 4; pointwise also 1/6 to 6 times as many,
               at most 4096
    kernel     by kind (`DEPTHWISE_KERNELS`, `LARGE_KERNELS`, `FIRST_KERNELS`)
    stride     of a first layer 1, 2, 4 or the kernel (patches), of a dilated one 1, of others 1 for 4 of 5, else 2
    groups     2, 4, 8, 16 or 32 that divide both; 1 of 5 depthwise layers has two outputs per channel
    dilation   1, except for kind dilated: 2, 2, 3, 4, 6, 12 or 18
    padding    8 of 10 keep the size (half the kernel), 1 of 10 has none, 1 of 10 is TensorFlow's "same": if the sum
               is odd, the extra row or column goes to the bottom or right
    batch      1 for 3 of 5, else 2, 3, 4, 6, 8, 12 or 16

A layer is drawn again if its output would be empty, if it is above `MOST_FLOPS` or `MOST_BYTES`, or if it equals an
earlier layer. So large layers are rarer than these weights, and N layers are N different problems. Two workloads with
the same seed start with the same layers.
The result is the same on every platform and Python version. Only `random.Random(SEED).random()` is used, whose sequence
is guaranteed by the documentation of `random`. A draw is a float times an integer, rounded down. NumPy is not used.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from conv_impls.problem import Conv2dProblem
from conv_impls.validation import Pair, Sides
from conv_impls.workloads.layer import Layer, WorkloadError

PREFIX = "random:"
FORM = "random:N:SEED"
MOST_LAYERS, MOST_SEED = 1000, 2**32 - 1
# Limits of one call: operations by the definition; bytes of image, weights and output in float32.
MOST_FLOPS, MOST_BYTES = 4 * 10**9, 256 * 10**6

KINDS = {
    "pointwise": 30, "dense": 24, "depthwise": 15, "grouped": 7, "dilated": 7, "large": 7, "first": 7, "one_pixel": 3,
}  # fmt: skip
# Sides of images and numbers of channels, from the first layers of networks to their last ones.
STAGES: tuple[tuple[int, Sequence[int], Sequence[int]], ...] = (
    (2, (112, 128, 149, 160, 192, 208, 224, 256, 300, 320, 384, 416, 512), (8, 12, 16, 24, 32, 48, 64, 96)),
    (3, (52, 55, 56, 64, 73, 75, 76, 80, 96, 104), (16, 24, 32, 40, 48, 64, 72, 96, 128, 144, 192, 256)),
    (3, (26, 27, 28, 32, 35, 38, 40, 48), (32, 40, 64, 80, 96, 120, 128, 160, 192, 240, 256, 320, 384, 512)),
    (4, (7, 8, 10, 13, 14, 16, 17, 19, 20), (64, 80, 112, 128, 160, 184, 192, 240, 256, 320, 384, 480, 512, 576, 672,
                                             768, 832, 960, 1024, 1280, 1536, 2048)),
)  # fmt: skip
FIRST_SIDES = (28, 32, 96, 128, 160, 192, 224, 227, 240, 256, 299, 320, 384, 416, 512, 640)
FIRST_KERNELS = ((3, 1), (3, 2), (3, 2), (5, 1), (5, 2), (7, 2), (7, 2), (11, 4), (4, 4), (8, 8), (14, 14), (16, 16))
FIRST_CHANNELS = (16, 24, 32, 32, 48, 64, 64, 96, 128)
PATCH_CHANNELS = (96, 192, 384, 768, 1024)
DEPTHWISE_KERNELS = ((3, 3), (3, 3), (3, 3), (5, 5), (5, 5), (7, 7))
LARGE_KERNELS = ((5, 5), (5, 5), (7, 7), (9, 9), (1, 3), (3, 1), (1, 7), (7, 1), (2, 2), (4, 4))
DILATIONS = (2, 2, 3, 4, 6, 12, 18)
BATCHES = (2, 3, 4, 6, 8, 12, 16)
GROUPS = (2, 4, 8, 16, 32)
EXPANSIONS = (1, 2, 3, 4, 6)
MOST_POINTWISE = 4096

T = TypeVar("T")


class Dice:
    """Random draws that are the same on every platform."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def below(self, count: int) -> int:
        """An integer from 0 to count - 1."""
        return int(self._random() * count)

    def one(self, values: Sequence[T]) -> T:
        """One of the values, with equal probability."""
        return values[self.below(len(values))]

    def weighted(self, values: Sequence[T], weights: Sequence[int]) -> T:
        """One of the values, with probability proportional to its weight."""
        ends = list(accumulate(weights))
        at = self.below(ends[-1])
        return next(value for value, end in zip(values, ends, strict=True) if at < end)

    def happens(self, times: int, of: int) -> bool:
        """True with probability ``times / of``."""
        return self.below(of) < times


def read(text: str) -> tuple[str, list[Layer]]:
    """Draw the layers; return the name of the workload and its layers.

    Raises
    ------
    WorkloadError
        If the text is not random:N:SEED, or a number is out of range.

    Examples
    --------
    >>> name, layers = read("random:3:1")
    >>> name, len(layers)
    ('random:3:1', 3)
    """
    match = re.fullmatch(r"random:([0-9]{1,12}):([0-9]{1,12})", text)
    count, seed = map(int, match.groups()) if match else (0, 0)
    if not 1 <= count <= MOST_LAYERS or seed > MOST_SEED:
        raise WorkloadError(
            f"expected {FORM} with N from 1 to {MOST_LAYERS} and SEED from 0 to {MOST_SEED}, "
            f"for example random:20:1, got {text[:80]!r}"
        )
    name = f"{PREFIX}{count}:{seed}"
    dice, found = Dice(seed), dict[str, Layer]()
    while len(found) < count:
        kind = dice.weighted(tuple(KINDS), tuple(KINDS.values()))
        problem = _problem(dice, kind)
        if problem is not None and problem.label not in found:
            title = _title(len(found) + 1, kind, problem)
            found[problem.label] = Layer(name, title, 1, problem.replace(name=title))
    return name, list(found.values())


def _problem(dice: Dice, kind: str) -> Conv2dProblem | None:
    """Draw one layer of a kind; None if it must be drawn again."""
    size, inside, outside, groups, kernel, stride, dilation = _sizes(dice, kind)
    padding = _padding(dice, size, kernel, stride, dilation)
    batch = 1 if dice.happens(3, 5) else dice.one(BATCHES)
    spans = [(k - 1) * dilation + 1 for k in kernel]
    if any(n + sum(sides) < span for n, sides, span in zip(size, padding, spans, strict=True)):
        return None
    problem = Conv2dProblem(
        batch, inside, size, outside, kernel, (stride, stride), padding, (dilation, dilation), groups
    )  # fmt: skip
    # Convert through the label: this removes padding that no window reaches.
    problem = Conv2dProblem.from_label(problem.label)
    return problem if problem.flops <= MOST_FLOPS and problem.min_bytes <= MOST_BYTES else None


def _sizes(dice: Dice, kind: str) -> tuple[Pair, int, int, int, Pair, int, int]:
    """Image, channels in and out, groups, kernel, stride and dilation."""
    if kind == "first":
        side, stride = dice.one(FIRST_KERNELS)
        outside = dice.one(PATCH_CHANNELS if side == stride else FIRST_CHANNELS)
        return _image(dice, FIRST_SIDES), dice.one((1, 3, 3, 3, 4)), outside, 1, (side, side), stride, 1
    _, sides, channels = dice.weighted(STAGES, [weight for weight, _, _ in STAGES])
    inside, same = dice.one(channels), dice.happens(1, 4)
    outside = inside if same else dice.one(channels)
    stride = 1 if dice.happens(4, 5) else 2
    groups, dilation, kernel = 1, 1, (3, 3)
    if kind == "one_pixel":
        return (1, 1), inside, max(4, inside // 4), 1, (1, 1), 1, 1
    if kind == "pointwise":
        kernel, factor = (1, 1), dice.one(EXPANSIONS)
        if not same:
            outside = min(MOST_POINTWISE, inside * factor) if dice.happens(1, 2) else max(8, inside // factor)
    elif kind == "depthwise":
        kernel, groups, outside = dice.one(DEPTHWISE_KERNELS), inside, inside * (2 if dice.happens(1, 5) else 1)
    elif kind == "grouped":
        groups = dice.one([g for g in GROUPS if inside % g == outside % g == 0])
    elif kind == "dilated":
        dilation, stride = dice.one(DILATIONS), 1
    elif kind == "large":
        kernel = dice.one(LARGE_KERNELS)
    return _image(dice, sides), inside, outside, groups, kernel, stride, dilation


def _image(dice: Dice, sides: Sequence[int]) -> Pair:
    height = dice.one(sides)
    near = [side for side in sides if height <= 2 * side and side <= 2 * height]
    return height, height if dice.happens(4, 5) else dice.one(near)


def _padding(dice: Dice, size: Pair, kernel: Pair, stride: int, dilation: int) -> Sides:
    way = dice.weighted(("half", "none", "tensorflow"), (8, 1, 1))
    # Patches and 1x1 kernels get no padding.
    if way == "none" or kernel == (1, 1) or kernel == (stride, stride):
        return (0, 0), (0, 0)
    if way == "half":
        height, width = ((k - 1) * dilation // 2 for k in kernel)
        return (height, height), (width, width)
    sums = [
        max(0, (-(-n // stride) - 1) * stride + (k - 1) * dilation + 1 - n) for n, k in zip(size, kernel, strict=True)
    ]
    return (sums[0] // 2, sums[0] - sums[0] // 2), (sums[1] // 2, sums[1] - sums[1] // 2)


def _title(number: int, kind: str, p: Conv2dProblem) -> str:
    """A unique name with the layer's parameters, except its batch, which may be replaced."""
    words = [
        f"{number} {kind} {p.in_channels}-{p.out_channels}" + (f"/{p.groups}" if p.groups > 1 else ""),
        f"k{p.kernel_size[0]}x{p.kernel_size[1]}",
        *([f"s{p.stride[0]}"] if p.stride[0] > 1 else []),
        *([f"d{p.dilation[0]}"] if p.dilation[0] > 1 else []),
        f"@{p.in_size[0]}x{p.in_size[1]}",
    ]
    return " ".join(words)
