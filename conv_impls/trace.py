"""Analyze a stack of layers without weights: output sizes, receptive fields, parameters, cost.

    receptive field:   rf += (extent - 1) * jump, extent = dilation*(k - 1) + 1;      jump *= stride
Source: Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks", Distill,
doi:10.23915/distill.00021, sec. 2. Limits: one chain of layers, no branches; the larger axis gives the receptive field
if the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import prod

from conv_impls import validation as check
from conv_impls.validation import Pair, Sides

_SPEC = re.compile(r"([kspdg])([0-9]+)(?:x([0-9]+))?|(psame|dw|nobias)")
# Columns of the table, and those that are aligned to the left.
COLUMNS = ("", "layer", "output", "receptive field", "stride", "parameters", "MACs")
LEFT = ("layer", "output")
KINDS = ("conv", "maxpool", "avgpool")
GRAMMAR = "conv OUT kK [sS] [pP|psame] [dD] [gG|dw] [nobias]; maxpool|avgpool kK [sS] [pP]; any number NxM for h and w"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a stack: "conv" with its output channels, or "maxpool"/"avgpool" (out_channels 0 keeps them)."""

    kind: str
    kernel_size: Pair
    out_channels: int = 0
    stride: Pair = (1, 1)
    padding: Sides = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1
    depthwise: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        check.choice("Layer", "kind", self.kind, KINDS)
        for argument in ("kernel_size", "stride", "dilation"):
            object.__setattr__(self, argument, check.pair("Layer", argument, getattr(self, argument), 1))
        sides = check.sides("Layer", self.padding, self.kernel_size, self.stride, self.dilation)
        object.__setattr__(self, "padding", sides)
        check.integer("Layer", "out_channels", self.out_channels, int(self.kind == "conv"))
        check.integer("Layer", "groups", self.groups, 1)


@dataclass(frozen=True, slots=True)
class LayerTrace:
    """The result for one layer: output (C, H, W), receptive field, effective stride, parameters, MACs, warnings."""

    layer: Layer
    text: str
    output: tuple[int, int, int]
    receptive_field: Pair
    effective_stride: Pair
    parameters: int
    macs: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Trace:
    """The result for a stack of layers. It is displayed as a table, as text and in notebooks as HTML."""

    input: tuple[int, int, int]
    layers: tuple[LayerTrace, ...]

    @property
    def parameters(self) -> int:
        """Number of parameters of the whole stack."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, in order."""
        return tuple(f"layer {i}: {text}" for i, layer in enumerate(self.layers, 1) for text in layer.warnings)

    def _rows(self) -> list[tuple[str, ...]]:
        """The cells of the table: one row for the input, each layer, and the sum."""
        rows: list[tuple[str, ...]] = [("", "input", "x".join(map(str, self.input)), "1", "1", "0", "0")]
        for i, t in enumerate(self.layers, 1):
            sizes = "x".join(map(str, t.output)), _short(t.receptive_field), _short(t.effective_stride)
            rows.append((str(i), t.text, *sizes, f"{t.parameters:,}", f"{t.macs:,}"))
        return [*rows, ("", "total", "", "", "", f"{self.parameters:,}", f"{self.macs:,}")]

    def __repr__(self) -> str:
        rows = [COLUMNS, *self._rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        aligned = [
            [
                cell.ljust(w) if name in LEFT else cell.rjust(w)
                for name, cell, w in zip(COLUMNS, row, widths, strict=True)
            ]
            for row in rows
        ]
        lines = ["  ".join(cells).rstrip() for cells in aligned]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])

    def _repr_html_(self) -> str:
        """The table for notebooks."""

        def row(tag: str, cells: tuple[str, ...]) -> str:
            sides = ["left" if name in LEFT else "right" for name in COLUMNS]
            columns = zip(sides, cells, strict=True)
            return "".join(f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for side, cell in columns)

        body = "\n".join(f"<tr>{row('td', cells)}</tr>" for cells in self._rows())
        notes = "".join(f"\n<p>warning: {escape(text)}</p>" for text in self.warnings)
        return f"<table>\n<thead><tr>{row('th', COLUMNS)}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{notes}"


def trace(input_size: Sequence[int], layers: str | Sequence[Layer]) -> Trace:
    """Compute sizes, receptive fields, parameters and MACs of a stack of layers.

    Parameters
    ----------
    input_size : (C, H, W)
        Size of the input image, each >= 1.
    layers : str or sequence of `Layer`
        In text, ``;`` separates layers: ``conv OUT kK [sS] [pP|psame] [dD] [gG|dw] [nobias]`` (``dw`` is depthwise:
        one group per channel), ``maxpool kK [sS] [pP]``, ``avgpool ...``. The stride of a pool defaults to its kernel.
        Any number may be ``NxM`` for (h, w).

    Returns
    -------
    Trace
        Displayed as a table, in notebooks as HTML; ``.layers`` (one `LayerTrace` each), ``.parameters``, ``.macs``,
        ``.warnings``. If a size falls to zero, the trace stops there with a warning.

    Raises
    ------
    ProblemError
        If the text does not parse, or the channels are not divisible by the groups.

    Examples
    --------
    >>> stack = trace((1, 128, 128), "conv 8 k3 p1; conv 16 k3 s2 p1; conv 16 k3 p1; conv 32 k3 s2 p1")
    >>> [(t.output[1], t.receptive_field[0]) for t in stack.layers]
    [(128, 3), (64, 5), (64, 9), (32, 13)]
    >>> trace((3, 32, 32), "conv 64 k3 p1; maxpool k2")
       layer          output    receptive field  stride  parameters       MACs
       input          3x32x32                 1       1           0          0
    1  conv 64 k3 p1  64x32x32                3       1       1,792  1,769,472
    2  maxpool k2     64x16x16                4       2           0          0
       total                                                  1,792  1,769,472
    """
    shape = check.shape("trace", "input_size", input_size, (3,))
    if not isinstance(layers, Sequence):
        check.fail_type("trace", "layers", "text or a sequence of Layer objects", type(layers).__name__, GRAMMAR)
    if min(shape) < 1:
        check.fail("trace", "input_size", "(C, H, W), each >= 1", shape)
    stack = [_parse(part) for part in _split(layers)] if isinstance(layers, str) else [_given(la) for la in layers]
    size: tuple[int, int, int] = (shape[0], shape[1], shape[2])
    field, jump = (1, 1), (1, 1)
    traced: list[LayerTrace] = []
    for layer, text in stack:
        step = _step(layer, text, size, field, jump, (shape[1], shape[2]))
        traced.append(step)
        if min(step.output) < 1:
            break
        size, field, jump = step.output, step.receptive_field, step.effective_stride
    return Trace((shape[0], shape[1], shape[2]), tuple(traced))


def _step(layer: Layer, text: str, size: tuple[int, int, int], field: Pair, jump: Pair, image: Pair) -> LayerTrace:
    channels = size[0]
    groups = channels if layer.depthwise else layer.groups
    out_channels = layer.out_channels if layer.kind == "conv" else channels
    if layer.kind == "conv":
        weight_shape = out_channels, channels // groups, *layer.kernel_size
        check.channels("trace", size, weight_shape, groups, names=("input_size", "layers"))
    out, fields, jumps, warnings = [], [], [], []
    for axis in (0, 1):
        extent = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1
        room = size[1 + axis] + sum(layer.padding[axis]) - extent
        out.append(room // layer.stride[axis] + 1 if room >= 0 else 0)
        fields.append(field[axis] + (extent - 1) * jump[axis])
        jumps.append(jump[axis] * layer.stride[axis])
        name, lines = ("height", "rows") if axis == 0 else ("width", "columns")
        # Rows after the last window belong to the image only as far as they exceed the padding there.
        unseen = max(0, room % layer.stride[axis] - layer.padding[axis][1])
        if room < 0:
            warnings.append(
                f"{name} falls to zero: window of {extent} on {size[1 + axis]} + padding {sum(layer.padding[axis])}"
            )
        elif unseen:
            warnings.append(f"{name} is not divisible: no window covers the last {unseen} {lines}")
        if fields[axis] > image[axis] >= field[axis]:
            warnings.append(f"receptive field {fields[axis]} is larger than the input {name} {image[axis]}")
    weights = out_channels * (channels // groups) * prod(layer.kernel_size) if layer.kind == "conv" else 0
    parameters = weights + (out_channels if layer.kind == "conv" and layer.bias else 0)
    result = (out_channels, out[0], out[1])
    return LayerTrace(
        layer,
        text,
        result,
        (fields[0], fields[1]),
        (jumps[0], jumps[1]),
        parameters,
        weights * prod(out),
        tuple(warnings),
    )


def _split(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(";") if part.strip()]
    if not parts:
        check.fail("trace", "layers", GRAMMAR, repr(text))
    return parts


def _parse(text: str) -> tuple[Layer, str]:
    kind, *words = text.split()
    if kind not in KINDS:
        check.fail("trace", "layers", GRAMMAR, repr(text), f"unknown layer {kind!r}")
    out_channels = 0
    if kind == "conv":
        if not words or not re.fullmatch("[0-9]+", words[0]) or int(words[0]) < 1:
            check.fail("trace", "layers", GRAMMAR, repr(text), "a conv starts with its output channels")
        out_channels = int(words.pop(0))
    numbers: dict[str, Pair] = {}
    flags: set[str] = set()
    seen: set[str] = set()
    for word in words:
        match = _SPEC.fullmatch(word)
        # A pool takes only k, s and p; a group count is one number; each value may be given once.
        key = match and (match[4] or match[1])
        token = {"psame": "p", "dw": "g"}.get(key or "", key)
        foreign = kind != "conv" and token not in ("k", "s", "p")
        if match is None or token is None or foreign or token in seen or (match[1] == "g" and match[3]):
            check.fail("trace", "layers", GRAMMAR, repr(word), f"in {text!r}")
        seen.add(token)
        if match[4]:
            flags.add(match[4])
        else:
            numbers[match[1]] = int(match[2]), int(match[3] or match[2])
    if "k" not in numbers:
        check.fail("trace", "layers", GRAMMAR, repr(text), "no kernel size")
    for letter in "ksd":
        check.pair("trace", letter, numbers.get(letter, (1, 1)), 1)
    kernel, dilation = numbers["k"], numbers.get("d", (1, 1))
    stride = numbers.get("s", (1, 1) if kind == "conv" else kernel)
    padding = "same" if "psame" in flags else numbers.get("p", (0, 0))
    sides = check.sides("trace", padding, kernel, stride, dilation)
    groups = check.integer("trace", "groups", numbers.get("g", (1, 1))[0], 1)
    return Layer(
        kind, kernel, out_channels, stride, sides, dilation, groups, "dw" in flags, "nobias" not in flags
    ), text


def _given(layer: Layer) -> tuple[Layer, str]:
    """A layer given as an object, with its text for the table."""
    if not isinstance(layer, Layer):
        check.fail_type("trace", "layers", "text or Layer objects", type(layer).__name__, GRAMMAR)
    out = f" {layer.out_channels}" if layer.kind == "conv" else ""
    return layer, f"{layer.kind}{out} k{_short(layer.kernel_size)} s{_short(layer.stride)}"


def _short(value: Pair) -> str:
    return str(value[0]) if value[0] == value[1] else f"{value[0]}x{value[1]}"
