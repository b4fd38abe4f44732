"""A kernel that counts stands for all kernels: what ran, how often, after what, and on which seat."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from conv_impls.kernels.runtime.compile import kernel
from conv_impls.kernels.runtime.job import Job
from conv_impls.kernels.runtime.operands import of_call, of_plan
from conv_impls.kernels.runtime.team import Team
from conv_impls.validation import Array

# Room for the parts of eight threads.
PARTS, PHASES = 32, 3
# The most that a test waits for another thread.
PATIENCE_S = 60


class Sizes(NamedTuple):
    loops: int


class Operands(NamedTuple):
    sizes: Sizes


def counting(phase: int) -> Any:
    """A kernel: one more in y[0, phase, part], and in y[1] if the phase before is done; y[2] is the number of parts."""

    @kernel
    def count(part: Any, parts: Any, operands: Any) -> None:
        x, y, work, at = of_call(operands)
        loops = of_plan(operands, Operands).sizes.loops
        total = 0.0
        for i in range(loops * (part % 5)):
            total += x[0] / (i + 1)
        work[at] += 1
        done = total >= 0
        for other in range(parts):
            if phase and y[(phase - 1) * PARTS + other] != 1:
                done = False
        y[(PHASES + phase) * PARTS + part] += done
        y[(2 * PHASES + phase) * PARTS + part] += parts
        y[phase * PARTS + part] += 1

    return count


KERNELS = [counting(phase) for phase in range(PHASES)]


class Counted:
    """Calls of `count` on a team, and what they left behind."""

    def __init__(self, seats: int, loops: int = 20) -> None:
        self.job = Job(KERNELS, np.dtype("float64"), Operands(Sizes(loops)), threads=seats, units=PARTS * seats, own=8)
        self.x, self.y, self.tasks = np.ones(1), np.zeros((3, PHASES, PARTS)), 0

    def run(self, workers: Team, seats: int) -> None:
        self.y.fill(0)
        workers.call(seats, self.x, self.y.reshape(-1), self.job._idle[-1].address)
        self.tasks += int(self.y[0].sum())

    @property
    def right(self) -> bool:
        """Every task of every phase ran once, after the phase before."""
        parts = int(self.y[2, 0, 0])
        expected = np.zeros_like(self.y)
        expected[:2, :, :parts], expected[2, :, :parts] = 1, parts
        return 1 <= parts <= PARTS and np.array_equal(self.y, expected)

    @property
    def by_seat(self) -> Array:
        """Tasks that each seat ran."""
        work, line = self.job._idle[-1].work, self.job._own
        found: Array = work[::line][: self.job._threads]
        return found


def team_of_many() -> Team:
    """A team that takes this machine for one of 64 cores."""
    return Team(cores=64)
