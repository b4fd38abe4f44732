"""Numbers -> readable text: three significant digits, thousands separators, "~" where a number is weak. Pure.

Terminal, Markdown, page and figures use the same format. Files for programs (CSV) have the plain numbers.
A table may have a column ``weak`` with the names of the row's columns that depend on weak measurements. The printed
table has no such column; it has a "~" before those numbers.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import TYPE_CHECKING

from .intervals import Ratio
from .sums import WEAK_SHARE

if TYPE_CHECKING:
    import pandas as pd

SIGN = "~"
NOTE = f"{SIGN}: may be wrong by more than {WEAK_SHARE:.0%}, since it depends on weak measurements"
# Larger numbers get an exponent; no measured value is that large.
HUGE = 1e12


def number(value: float, weak: object = False) -> str:
    """Three significant digits; all digits before the decimal point, thousands separated; whole numbers unchanged.

    Examples
    --------
    >>> number(0.012345), number(12.345), number(12345.6), number(999.7)
    ('0.0123', '12.3', '12,346', '1,000')
    >>> number(8.7), number(8.0), number(2.5, weak=True)
    ('8.70', '8', '~2.50')
    """
    if not abs(value) < HUGE:
        text = f"{value:.3g}"
    elif abs(value) >= 999.5 or math.isclose(value, round(value), rel_tol=1e-12):
        text = f"{value:,.0f}"
    else:
        text = f"{value:#.3g}".removesuffix(".")
    return sign(weak) + text


def times(value: float, weak: object = False) -> str:
    """A ratio: two decimals below 10, else like `number`.

    Examples
    --------
    >>> times(2.0), times(12.345), times(1.314, weak=True)
    ('2.00', '12.3', '~1.31')
    """
    return sign(weak) + (f"{value:.2f}" if abs(value) < 9.995 else number(value))


def interval(value: float, low: float, high: float, weak: object = False) -> str:
    """A ratio and its interval.

    Examples
    --------
    >>> interval(1.5, 1.25, 1.75)
    '1.50 (1.25 to 1.75)'
    """
    return f"{times(value, weak)} ({times(low)} to {times(high)})"


def compared(ours: str, theirs: str, ratio: Ratio | None, where: str) -> str:
    """A ratio as a sentence: how many times as fast ours is, with the interval.

    Examples
    --------
    >>> compared("a", "b", Ratio(1.5, 1.4, 1.6, 9, "faster"), "on n, 1 thread")
    'a is 1.50 times as fast as b on n, 1 thread (1.40 to 1.60)'
    >>> compared("a", "b", Ratio(0.5, 0.4, 0.625, 9, "slower"), "on n, 1 thread")
    'a takes 2.00 times as long as b on n, 1 thread (1.60 to 2.50)'
    """
    if ratio is None:
        return f"{ours} and {theirs} were not measured in the same rounds {where}"
    shown = f"({times(ratio.low)} to {times(ratio.high)})"
    if ratio.verdict == "faster":
        return f"{ours} is {times(ratio.value)} times as fast as {theirs} {where} {shown}"
    if ratio.verdict == "slower":
        shown = f"({times(1 / ratio.high)} to {times(1 / ratio.low)})"
        return f"{ours} takes {times(1 / ratio.value)} times as long as {theirs} {where} {shown}"
    why = "had too few common turns" if ratio.verdict == "too few repetitions" else "cannot be told apart"
    return f"{ours} and {theirs} {why} {where}: {times(ratio.value)} times as fast {shown}"


def percent(value: float, weak: object = False) -> str:
    """A fraction in whole percent."""
    return f"{sign(weak)}{value:.0%}"


def duration(seconds: float, weak: object = False) -> str:
    """Seconds with a unit, three significant digits.

    Examples
    --------
    >>> duration(0.0123456), duration(2.5e-8, weak=True)
    ('12.3 ms', '~25 ns')
    """
    units = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
    # The rounded value selects the unit: 0.9999 s is 1 s, not 1,000 ms.
    unit, scale = next((u for u in units if float(f"{seconds * u[1]:.3g}") >= 1), units[-1])
    return f"{number(seconds * scale, weak)} {unit}"


def sign(weak: object) -> str:
    """The mark before a weak number."""
    return SIGN if weak else ""


def cell(value: object, weak: object = False) -> str:
    """One table cell: a number like `number`, a ratio with its interval, a text unchanged, an empty text for None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, Ratio):
        return interval(value.value, value.low, value.high, weak)
    if isinstance(value, float):
        return number(value, weak)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return f"{sign(weak)}{int(value):,}"
    return sign(weak) + str(value)


def marked(content: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A table without its ``weak`` column, and for each of its cells whether it is weak."""
    if "weak" not in content:
        return content, content.isin([])
    plain = content.drop(columns="weak")
    weak = plain.isin([])
    for name in plain.columns:
        # An empty cell has nothing to mark.
        names = [f"; {name}; " in f"; {text}; " for text in content.weak]
        weak[name] = [named and known for named, known in zip(names, plain[name].notna(), strict=True)]
    return plain, weak


def shown(content: pd.DataFrame, weak: pd.DataFrame | None = None) -> tuple[pd.DataFrame, str]:
    """A readable table: every cell as text, and the line that explains the marks (empty if there is no mark).

    Parameters
    ----------
    content : DataFrame
    weak : DataFrame of bool, optional
        Which cells are weak. By default they come from the column ``weak`` of ``content``, which is not shown.
    """
    if weak is None:
        content, weak = marked(content)
    texts = content.astype(object)
    for name in content.columns:
        texts[name] = [cell(value, mark) for value, mark in zip(texts[name], weak[name], strict=True)]
    return texts, NOTE if weak.any(axis=None) else ""
