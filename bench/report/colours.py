"""Colours and markers of figures: one pair per backend in all figures of a run, light and dark.

The eight hues follow Okabe & Ito 2008 ("Color Universal Design"). Light and dark figures have shades of them with a
contrast of at least 4.5 (WCAG 2.2, 1.4.3), because a label has the colour of its line.
Limits: from the 73rd backend of the user on, pairs repeat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import product
from zlib import crc32

# The colours of a figure: of text, of quiet text and lines, of the background, and the hues of backends.
INK, MUTED, FAINT, PAPER = "#1A1A1A", "#595959", "#C8C8C8", "#FFFFFF"
HUES = {
    "black": "#1A1A1A", "blue": "#0060A8", "vermilion": "#B84300", "green": "#00704F", "purple": "#9B3D78",
    "amber": "#855A00", "cyan": "#1A7193", "grey": "#6B6B6B",
}  # fmt: skip
# The dark form of each of them. Other colours, such as those of images, stay as they are.
DARK = {
    INK: "#F0F3F6", MUTED: "#A8B3BF", FAINT: "#4A5561", PAPER: "#0D1117", HUES["blue"]: "#6CB6FF",
    HUES["vermilion"]: "#FF9A5C", HUES["green"]: "#4CCB9F", HUES["purple"]: "#F49AC8", HUES["amber"]: "#E8C547",
    HUES["cyan"]: "#6FD3E8", HUES["grey"]: "#A9A9A9",
}  # fmt: skip
DARK_ENDING = "-dark"
MARKERS = "os^vDPX*<>hp"
# Hue and marker of the backends of this project. Others, of users too, get one of the remaining pairs.
KNOWN = {
    "python_loops": ("black", "o"), "numpy_im2col": ("amber", "s"), "numpy_strided": ("cyan", "^"),
    "scipy_fft": ("purple", "D"), "numba_direct": ("green", "v"), "numba_simd": ("vermilion", "o"),
    "numba_winograd": ("blue", "D"), "numba_winograd_f2": ("cyan", "s"), "numba_winograd_f2_5x5": ("green", "s"),
    "numba_winograd_f4": ("blue", "^"), "numba_winograd_f6": ("purple", "v"), "numba_depthwise": ("amber", "D"),
    "auto": ("blue", "o"), "auto_strict": ("grey", "s"), "auto_eager": ("cyan", "o"), "torch_nchw": ("vermilion", "P"),
    "torch_channels_last": ("vermilion", "X"), "torch_prepacked": ("vermilion", "^"), "onnxruntime": ("green", "P"),
    "openvino": ("purple", "P"), "openvino_channels_last": ("purple", "X"), "opencv": ("amber", "P"),
    "jax": ("grey", "P"), "jax_channels_last": ("grey", "X"),
}  # fmt: skip
SPARE = [pair for pair in product(HUES, MARKERS) if pair not in KNOWN.values()]
_pairs: ContextVar[dict[str, tuple[str, str]] | None] = ContextVar("pairs", default=None)


def pairs(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Hue and marker of each name; the same names give the same pairs in every order."""
    made = dict(KNOWN)
    for name in sorted(set(names) - KNOWN.keys()):
        start = crc32(name.encode())
        free = (pair for i in range(len(SPARE)) if (pair := SPARE[(start + i) % len(SPARE)]) not in made.values())
        made[name] = next(free, SPARE[start % len(SPARE)])
    return made


def style(backend: str) -> tuple[str, str]:
    """Colour and marker of a backend."""
    hue, marker = (_pairs.get() or pairs([backend]))[backend]
    return HUES[hue], marker


@contextmanager
def backends_of(names: Iterable[str]) -> Iterator[None]:
    """Within this context, all figures use the same pairs for these backends; an inner context changes nothing."""
    before = _pairs.set(_pairs.get() or pairs(names))
    try:
        yield
    finally:
        _pairs.reset(before)


def darkened(svg: str) -> str:
    """An SVG with each colour of the light theme replaced by the dark one.

    Examples
    --------
    >>> darkened("fill: #1a1a1a; stroke: #123456")
    'fill: #f0f3f6; stroke: #123456'
    """
    colours = {light.lower(): dark.lower() for light, dark in DARK.items()}
    return re.sub("|".join(colours), lambda found: colours[found[0]], svg)
