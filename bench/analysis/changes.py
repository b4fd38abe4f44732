"""Compare one case, or a sum of cases, between two runs: times, ratio, verdict, and whether the machine changed.

    slower, faster        the interval of new/old does not contain 1, and the ratio is beyond the margin; with fewer
                          than `intervals.MIN_PAIRS` times on a side: every new time is beyond `FAR` times every old one
    machine               the times changed, but the machine may explain the change
    uncertain             neither slower nor faster
    too few repetitions   fewer than `intervals.MIN_PAIRS` times on a side, and no change by `FAR`

The machine is rarely the same in both runs: on a shared host the same program can take 10% longer a minute later. Which
layers slow down depends on how other processes use the caches and memory. Both runs therefore time a fixed piece of
work of the layer's size in every round (`bench.machine.yardstick`). Times are compared in units of this yardstick. A
change in seconds only is reported as `machine`. So is a change that the fastest turns, in units of the fastest
yardsticks, do not confirm: interference slows most turns at times, but rarely all of them. Runs before 0.4.0 have no
yardstick: their margin is wide, and a verdict is vetoed if the FMA peak changed as much. A time based on fewer than
three undisturbed turns can also veto a verdict.
docs/decisions/0016 has the measured rates: how often unchanged code, and code that is slower, gets the verdict slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from . import intervals, stats
from .intervals import Ratio, Turns

FAR = 3.0
# Smallest relevant change of the median, as a fraction: with a yardstick in both runs, and without.
MARGIN, WIDE_MARGIN = 0.05, 0.25


@dataclass
class Measured:
    """The measurements of one case in one run."""

    layers: dict[str, None] = field(default_factory=dict)
    status: str = "ok"
    turns: dict[tuple[int, int], float] = field(default_factory=dict)
    yardsticks: dict[tuple[int, int], float] = field(default_factory=dict)
    peaks_gflops: list[float] = field(default_factory=list)
    disturbed: int = 0

    @property
    def times_s(self) -> list[float]:
        """The times of all turns."""
        return list(self.turns.values())

    @property
    def yardstick_s(self) -> float | None:
        """The median time of the yardstick, if every turn has one."""
        whole = self.turns and self.yardsticks.keys() == self.turns.keys()
        return stats.median(list(self.yardsticks.values())) if whole else None

    def at_pace(self, yardstick_s: float | None) -> Turns:
        """The times of the turns, scaled to a machine whose yardstick takes ``yardstick_s``."""
        assert yardstick_s is not None
        return {key: time_s * yardstick_s / self.yardsticks[key] for key, time_s in self.turns.items()}

    @property
    def bias(self) -> float:
        """The share by which the time may be too long because of effects on all turns."""
        return stats.doubt(self.times_s, disturbed=self.disturbed).bias


# Weight, case of the older run, case of the newer run.
Pair = tuple[int, Measured, Measured]


def changed(layers: Sequence[Pair], margin: float | None, level: float) -> dict[str, object]:
    """Times, ratio and verdict of one case or of a sum of several."""
    same = _have_yardsticks(layers)
    margin = margin if margin is not None else MARGIN if same else WIDE_MARGIN
    plain = intervals.change([(weight, old.turns, new.turns) for weight, old, new in layers], margin, level)
    fair = plain
    if same:
        paces = [(weight, old.at_pace(old.yardstick_s), new.at_pace(old.yardstick_s)) for weight, old, new in layers]
        fair = intervals.change(paces, margin, level)
    peak = _peak(layers)
    word = fair.verdict if fair.pairs >= intervals.MIN_PAIRS else _far(layers)
    if _machine(word, fair, plain, layers, margin) or (not same and _vetoed(word, fair.value * (peak or 0.0), margin)):
        word = "machine"
    return {
        "old_s": sum(weight * stats.median(old.times_s) for weight, old, _ in layers),
        "new_s": sum(weight * stats.median(new.times_s) for weight, _, new in layers),
        "ratio": fair.value, "low": fair.low, "high": fair.high,
        "yardstick": plain.value / fair.value if same else None, "peak": peak, "margin": margin, "verdict": word,
    }  # fmt: skip


def _have_yardsticks(layers: Sequence[Pair]) -> bool:
    """Whether all layers have a yardstick in both runs."""
    return all(old.yardstick_s and new.yardstick_s for _, old, new in layers)


def _machine(word: str, fair: Ratio, plain: Ratio, layers: Sequence[Pair], margin: float) -> bool:
    """Whether only seconds changed, the fastest turns did not change, or the bias of the slower run explains it."""
    if fair.pairs >= intervals.MIN_PAIRS and word == "slower":
        bias = _bias((weight, new) for weight, _, new in layers)
        return fair.low * (1 - bias) <= 1 or _fastest(layers) <= 1 + margin
    if fair.pairs >= intervals.MIN_PAIRS and word == "faster":
        bias = _bias((weight, old) for weight, old, _ in layers)
        return fair.high / (1 - bias) >= 1 or _fastest(layers) >= 1 / (1 + margin)
    return word == "uncertain" and plain.verdict != "uncertain"


def _fastest(layers: Sequence[Pair]) -> float:
    """Ratio new/old of the fastest turns, in units of the fastest yardsticks if every layer has them."""
    same = _have_yardsticks(layers)
    sums = [0.0, 0.0]
    for weight, old, new in layers:
        pace = min(old.yardsticks.values()) / min(new.yardsticks.values()) if same else 1.0
        sums[0] += weight * min(old.times_s)
        sums[1] += weight * min(new.times_s) * pace
    return sums[1] / sums[0]


def _vetoed(word: str, at_peak: float, margin: float) -> bool:
    """Whether the FMA peak changed as much; ``at_peak`` is the ratio of the operations possible at peak, or 0."""
    slower = word == "slower" and at_peak <= 1 + margin
    return at_peak > 0 and (slower or (word == "faster" and at_peak >= 1 / (1 + margin)))


def _far(layers: Sequence[Pair]) -> str:
    """The verdict for few times: every new time must be beyond `FAR` times every old one."""
    both = [(old.times_s, new.times_s) for _, old, new in layers]
    if all(min(new) > FAR * max(old) for old, new in both):
        return "slower"
    return "faster" if all(FAR * max(new) < min(old) for old, new in both) else "too few repetitions"


def _bias(sides: Iterable[tuple[int, Measured]]) -> float:
    """The share by which a sum may be too long because of effects on all turns of a layer."""
    times = [(weight * stats.median(side.times_s), side.bias) for weight, side in sides]
    return sum(time_s * bias for time_s, bias in times) / sum(time_s for time_s, _ in times)


def _peak(layers: Sequence[Pair]) -> float | None:
    """Ratio new/old of the FMA peak; None if it is unknown for a layer."""
    known = [
        stats.median(new.peaks_gflops) / stats.median(old.peaks_gflops)
        for _, old, new in layers
        if old.peaks_gflops and new.peaks_gflops
    ]
    return stats.median(known) if len(known) == len(layers) else None
