"""The data of one turn of a backend, and the pace of the machine in the same round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# A thread that shares a core with another task loses it once per time slice of 3 to 8 ms: this often per second, and in
# most samples. On a quiet machine 0 to 3% of the turns exceed it; next to a busy process, all turns that stall do
# (docs/decisions/0014).
CROWDED_PER_S = 100.0


@dataclass
class Turn:
    """The samples of one turn, in seconds per call, and its other data."""

    round: int
    samples_s: list[float]
    switches: list[int]
    iterations: int
    read_s: float

    @property
    def crowded(self) -> bool:
        """Whether the threads of the process lost their cores all the time."""
        most = 2 * sum(n > 0 for n in self.switches) > len(self.switches)
        return most and sum(self.switches) > CROWDED_PER_S * sum(self.samples_s) * self.iterations


class Pace(NamedTuple):
    """The machine in one round: its FMA peak, and the time of its yardstick; 0 if unknown."""

    gflops: float
    yardstick_s: float
