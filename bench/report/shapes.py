"""Markers of matplotlib as SVG paths in a square from -1 to 1, for charts and legends of the page."""

from __future__ import annotations

from math import cos, pi, sin


def polygon(corners: int, turn: float = 0.0, inner: float = 0.0) -> str:
    """A regular polygon whose first corner is at the top, turned clockwise by ``turn`` of a circle.

    With ``inner``, a star: a corner at this share of the radius between any two others.

    Examples
    --------
    >>> polygon(4)
    'M0,-1L1,0L0,1L-1,0Z'
    """
    steps = corners * (2 if inner else 1)
    points = []
    for i in range(steps):
        angle, radius = 2 * pi * (i / steps + turn), inner if inner and i % 2 else 1.0
        points.append(f"{round(radius * sin(angle), 3) + 0.0:g},{round(-radius * cos(angle), 3) + 0.0:g}")
    return f"M{'L'.join(points)}Z"


def cross(turn: float = 0.0) -> str:
    """A plus sign with thick arms, turned clockwise by ``turn`` of a circle."""
    arm = 0.35
    corners = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
    corners += [(-x, -y) for x, y in corners]
    c, s = cos(2 * pi * turn), sin(2 * pi * turn)
    points = [f"{round(c * x - s * y, 3) + 0.0:g},{round(s * x + c * y, 3) + 0.0:g}" for x, y in corners]
    return f"M{'L'.join(points)}Z"


PATHS = {
    "o": "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0Z", "s": polygon(4, 1 / 8), "D": polygon(4), "^": polygon(3),
    "v": polygon(3, 1 / 2), "<": polygon(3, -1 / 4), ">": polygon(3, 1 / 4), "P": cross(), "X": cross(1 / 8),
    "*": polygon(5, inner=0.45), "p": polygon(5), "h": polygon(6),
}  # fmt: skip
