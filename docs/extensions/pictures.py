"""One picture for each rung of the tutorial, drawn when the site is built.

Numbers in the pictures are computed by the functions that the rung explains. Lines and texts have the colour of the
page's text, so that the pictures are readable in light and dark mode.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import bench.report  # noqa: F401  imports matplotlib without the user's settings
from conv_impls import conv2d, im2col
from conv_impls.filters import KERNELS
from conv_impls.kernels import simd, tile
from conv_impls.validation import Array

import matplotlib as mpl  # isort: skip
from matplotlib.figure import Figure  # isort: skip
from matplotlib.patches import Rectangle  # isort: skip

# Stands for the colour of the page's text until the picture is part of a page.
INK = "#010203"
# Middle tones, readable on white and on black.
BLUE, ORANGE, GREEN = "#3a8fd6", "#dd7622", "#2a9d6f"
# Inches; a phone shows a picture about 3.5 inches wide.
WIDTH = 4.7
RC: Any = {
    "font.size": 11, "svg.fonttype": "none", "font.family": "sans-serif", "text.color": INK, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "text.parse_math": False,
}  # fmt: skip
Cells = dict[tuple[int, int], str]


def svg(rung: str) -> str:
    """The picture of a rung (name of its backend) as an SVG element, with its `caption` as text for screen readers."""
    text = StringIO()
    with mpl.rc_context(mpl.rcParamsDefault | {"backend": "agg"} | RC | {"svg.hashsalt": rung}):
        figure = PICTURES[rung]()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None}, bbox_inches="tight")
    element = text.getvalue()
    element = element[element.index("<svg") :].replace(INK, "currentColor")
    # Several pictures share a page, so their identifiers must differ.
    element = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{rung}-", element)
    # The page sets the size.
    element = re.sub(r' (width|height)="[\d.]+pt"', "", element, count=2)
    return element.replace("<svg", f'<svg role="img" aria-label="{caption(rung)}" class="rung"', 1)


def caption(rung: str) -> str:
    """What the picture of a rung shows: the docstring of the function that draws it."""
    return inspect.getdoc(PICTURES[rung]) or ""


def python_loops() -> Figure:
    """One patch times the kernel gives one element of the output."""
    image = np.random.default_rng(3).integers(0, 10, (1, 6, 6)).astype(float)
    kernel = KERNELS["sobel_x"].astype(float)
    result = conv2d(image, kernel[None, None], backend="python_loops")[0]
    figure, axes = _canvas((0, 17.2), (-1.6, 6.2))
    row, column = 1, 2
    seen = {(row + i, column + j): BLUE for i in range(3) for j in range(3)}
    _grid(axes, (0, 0), image[0], seen)
    _grid(axes, (7.6, 1.5), kernel, {(i, j): ORANGE for i in range(3) for j in range(3)})
    _grid(axes, (12.6, 1), result, {(row, column): GREEN})
    for x, text in ((6.8, "×"), (11.6, "→")):
        _text(axes, x, 3, text, size=15)
    for x, text in ((3, "image"), (9.1, "kernel"), (14.6, "output")):
        _text(axes, x, -0.9, text)
    return figure


def numpy_im2col() -> Figure:
    """The patches of the image are the columns of a matrix, which the kernels multiply."""
    image = np.arange(16.0).reshape(1, 4, 4)
    columns = im2col(image[None], 2)[0]
    figure, axes = _canvas((0, 21), (-1.6, 4.4))
    _grid(axes, (0, 0), image[0], {(i, j + 1): BLUE for i in range(2) for j in range(2)})
    _text(axes, 4.9, 2, "→", size=15)
    _grid(axes, (6, 0.5), np.full((3, 4), np.nan), {(i, j): ORANGE for i in range(3) for j in range(4)})
    _text(axes, 10.8, 2, "×", size=15)
    _grid(axes, (11.6, 0), columns, {(i, 1): BLUE for i in range(4)})
    for x, text in ((2, "image"), (8, "kernels"), (16.1, "columns: one for each patch")):
        _text(axes, x, -0.9, text)
    return figure


def numpy_strided() -> Figure:
    """The windows of a strided view read elements of one image in memory."""
    image = np.arange(16).reshape(4, 4)
    view = sliding_window_view(image, (2, 2))
    figure, axes = _canvas((-4.4, 16.2), (-1.4, 6.2))
    _grid(axes, (0, 0), image.reshape(1, -1).astype(float))
    _text(axes, -0.4, 0.5, "memory", ha="right")
    shown = ((0, 0), (0, 1), (0, 2), (1, 0))
    for line, (i, j) in enumerate(shown):
        read = [int(element) for element in view[i, j].ravel()]
        _text(axes, -0.4, line + 2, f"window {i},{j}", ha="right")
        axes.plot([read[0] + 0.5, read[-1] + 0.5], [line + 2] * 2, color=BLUE, lw=1, alpha=0.5)
        axes.plot([element + 0.5 for element in read], [line + 2] * 4, "o", color=BLUE, ms=8)
    _text(axes, 8, -0.8, "no element is copied: only strides differ")
    return figure


def scipy_fft() -> Figure:
    """The product of the spectra of image and kernel is the spectrum of the result."""
    rows, columns = np.mgrid[-16:16, -16:16]
    image = ((rows**2 + columns**2 < 90) & (rows < 4)).astype(float)
    kernel = np.zeros_like(image)
    kernel[:3, :3] = KERNELS["sobel_x"]
    # Cross-correlation: the spectrum of the kernel is conjugated.
    spectra = np.fft.fft2(image), np.conj(np.fft.fft2(kernel))
    result = np.fft.ifft2(spectra[0] * spectra[1]).real
    figure = Figure(figsize=(WIDTH, 1.75))
    shown = (image, _spectrum(spectra[0]), _spectrum(spectra[1]), result)
    panels = figure.subplots(1, 4, gridspec_kw={"wspace": 0.4})
    titles = "image", "its spectrum", "of the kernel", "result"
    for axes, values, title, sign in zip(panels, shown, titles, ("→", "×", "→", ""), strict=True):
        axes.imshow(values, cmap="cividis")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=10, color=INK)
        axes.text(1.2, 0.5, sign, transform=axes.transAxes, ha="center", va="center", fontsize=14, color=INK)
    return figure


def numba_direct() -> Figure:
    """Blocks of four output rows are computed by different threads, along the rows."""
    figure, axes = _canvas((-0.3, 26), (-1.4, 9.3))
    tasks: Cells = {(i, j): (BLUE if i < 4 else ORANGE) for i in range(8) for j in range(16)}
    _grid(axes, (0, 0), np.full((8, 16), np.nan), tasks)
    axes.annotate("", (15.6, 2), (0.4, 2), arrowprops={"arrowstyle": "->", "color": INK, "lw": 2})
    axes.add_patch(Rectangle((0, 0), 16, 4, fill=False, ec=INK, lw=2))
    for y, text in ((1.3, "inner loop: neighbours,"), (2.5, "as vector instructions")):
        _text(axes, 16.5, y, text, ha="left")
    for y, text, colour in ((4.6, "4 rows at once", INK), (0, "thread 1", BLUE), (6, "thread 2", ORANGE)):
        _text(axes, 16.5, y, text, ha="left", colour=colour)
    _text(axes, 8, -0.8, "output rows of one channel")
    return figure


def numba_simd() -> Figure:
    """One value for each row times two vectors of columns updates a tile of sums in registers."""
    rows, vectors, lanes = tile.ROWS, tile.VECTORS, simd.VECTOR_BYTES // np.dtype(np.float32).itemsize
    width = vectors * (lanes + 0.5) - 0.5
    figure, axes = _canvas((-8 - width / 16, width + 0.3), (-2.6, rows + 2.2))
    _grid(axes, (-2.2, 0), np.full((rows, 1), np.nan), {(i, 0): ORANGE for i in range(rows)})
    for vector in range(vectors):
        at = vector * (lanes + 0.5)
        _grid(axes, (at, -1.8), np.full((1, lanes), np.nan), {(0, j): BLUE for j in range(lanes)})
        _grid(axes, (at, 0), np.full((rows, lanes), np.nan), {(i, j): GREEN for i in range(rows) for j in range(lanes)})
    _text(axes, -2.7, rows / 2, "one value\nfor each row", ha="right", colour=ORANGE)
    _text(axes, -2.7, -1.3, f"{vectors} vectors", ha="right", colour=BLUE)
    _text(axes, width / 2, rows + 1.3, f"{rows} rows × {vectors} vectors of sums, in registers", colour=GREEN)
    return figure


def numba_winograd() -> Figure:
    """Larger Winograd tiles need fewer products for each output."""
    sizes = {"direct": 1, "F(2x2)": 2, "F(4x4)": 4, "F(6x6)": 6}
    products = [((m + 2) / m) ** 2 for m in sizes.values()]
    figure = Figure(figsize=(WIDTH, 2.1))
    axes = figure.subplots()
    bars = axes.barh(list(sizes), products, color=[ORANGE, BLUE, BLUE, BLUE], height=0.65)
    axes.bar_label(bars, [f"{count:.3g}" for count in products], padding=4, color=INK)
    axes.set_xlabel("products for each output and input channel, 3x3")
    axes.invert_yaxis()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def numba_depthwise() -> Figure:
    """A vector of columns moves down the image; each row that it reads updates three sums."""
    figure, axes = _canvas((-0.3, 25), (-1.4, 10.2))
    seen: Cells = {(4, j): BLUE for j in range(2, 10)}
    _grid(axes, (0, 0), np.full((9, 12), np.nan), seen)
    axes.annotate("", (6, 8.6), (6, 5.2), arrowprops={"arrowstyle": "->", "color": INK, "lw": 2})
    for row, y in enumerate((2.5, 4.5, 6.5)):
        _grid(axes, (15, y - 0.5), np.full((1, 8), np.nan), {(0, j): GREEN for j in range(8)})
        axes.annotate("", (14.8, y), (10.2, 4.5), arrowprops={"arrowstyle": "->", "color": INK, "alpha": 0.6})
        _text(axes, 23.3, y, f"y{row}", ha="left")
    _text(axes, 6, -0.8, "image of one channel")
    _text(axes, 19, -0.8, "three sums in registers")
    _text(axes, 19, 1.2, "9 weights in registers", colour=INK)
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    draw.__name__: draw
    for draw in (
        python_loops, numpy_im2col, numpy_strided, scipy_fft, numba_direct, numba_simd, numba_winograd, numba_depthwise,
    )
}  # fmt: skip


def _canvas(x: tuple[float, float], y: tuple[float, float]) -> tuple[Figure, Any]:
    """Axes without a frame, in units of one cell, with the first row at the top."""
    figure = Figure(figsize=(WIDTH, WIDTH * (y[1] - y[0]) / (x[1] - x[0])))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=x, ylim=y[::-1], aspect="equal")
    axes.set_axis_off()
    return figure, axes


def _grid(axes: Any, at: tuple[float, float], values: Array, coloured: Cells | None = None) -> None:
    """A matrix as cells with numbers, or empty cells where the value is NaN."""
    for (i, j), value in np.ndenumerate(values):
        colour = (coloured or {}).get((i, j))
        x, y = at[0] + j, at[1] + i
        axes.add_patch(Rectangle((x, y), 1, 1, fc=(colour, 0.35) if colour else "none", ec=INK, lw=0.7))
        if np.isfinite(value):
            _text(axes, x + 0.5, y + 0.5, f"{value:g}".replace("-", "\N{MINUS SIGN}"), size=8.5)


def _text(axes: Any, x: float, y: float, text: str, size: float = 10.5, ha: str = "center", colour: str = INK) -> None:
    axes.text(x, y, text, ha=ha, va="center", fontsize=size, color=colour)


def _spectrum(values: Array) -> Array:
    """Logarithm of the magnitudes, zero frequency in the middle."""
    magnitudes: Array = np.log1p(np.abs(np.fft.fftshift(values)))
    return magnitudes
