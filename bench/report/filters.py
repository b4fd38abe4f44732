"""The kernels of the filter bank, applied to a photograph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

from conv_impls import KERNELS, apply_kernel

from .style import corner, styled, titled_figure

ACROSS = 3


@styled
def filters(table: pd.DataFrame, environment: dict[str, Any]) -> Figure:
    """The kernels of the filter bank on matplotlib's sample photograph (Grace Hopper, U.S. Navy, public domain)."""
    photo = grey_photo()
    answers = {name: apply_kernel(photo, kernel, padding_mode="reflect") for name, kernel in KERNELS.items()}
    rows = -(-len(answers) // ACROSS)
    figure, grid = titled_figure(1.0 + 2.1 * rows, title(), rows, ACROSS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, answer) in zip(grid.flat, answers.items(), strict=False):
        limit = float(np.percentile(np.abs(answer), 99))
        low, high = (-limit, limit) if signed(name) else (0.0, 1.0)
        axes.imshow(answer, cmap="gray", vmin=low, vmax=high)
        axes.set_title(name)
    size = f"{photo.shape[1]}x{photo.shape[0]} pixels"
    corner(figure, environment, f"{size}, padding reflect; grey is 0 where a kernel sums to 0")
    return figure


def signed(name: str) -> bool:
    """Whether a kernel sums to 0, so that it gives values of both signs at edges, and 0 on flat areas."""
    return abs(float(KERNELS[name].sum())) < 1e-6


def title() -> str:
    """What the kernels do to flat areas."""
    zero = sum(map(signed, KERNELS))
    return f"One convolution, {len(KERNELS)} kernels: {zero} turn flat areas to 0, {len(KERNELS) - zero} keep them"


def grey_photo() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Matplotlib's sample photograph at half its size, as (H, W) float32 in 0..1."""
    from PIL import Image

    file: Any = get_sample_data("grace_hopper.jpg")
    with file:
        return np.asarray(Image.open(file).convert("L").reduce(2), np.float32) / np.float32(255)
