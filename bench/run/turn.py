"""What one turn of a backend says, and what the machine could do in the same round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# Threads that share a core with another task lose it once a slice of 3 to 8 ms: so often a second, and in most samples.
# On a quiet machine 0 to 3% of the turns do so; next to a busy process, all turns that stall (docs/decisions/0014).
CROWDED_PER_S = 100.0


@dataclass
class Turn:
    """The samples of one turn, in seconds a call, and what else it says."""

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
    """What the machine could do in a round: its FMA peak, and the time of its yardstick; 0 where it is not known."""

    gflops: float
    yardstick_s: float
