"""One backend on one layer, in the parent process: sends the orders, checks the answers, makes the record.

    prepare   probe the layer cut to a few rows; estimate; run the whole layer; compare all outputs with the reference
    turn      samples on new images; compare some outputs of each; compare the clock with the parent's
    last      compare all outputs of one more call
    record    the median of the undisturbed turns, or the status and reason of the first failure

Threat model: honest mistakes and the usual tricks, not malice (docs/decisions/0013-the-parent-judges.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from conv_impls import Conv2dProblem, UnsupportedError
from conv_impls.validation import Array

from ..analysis import stats
from ..machine.peaks import Peaks
from ..store.folder import checked
from ..store.records import Case, Record, StoreError
from . import exchange
from .check import Expected, Verdict, scales
from .directions import as_forward, every
from .floor import least_s
from .process import Answer, Worker
from .subject import SLOW_S, remembers, shrunk
from .turn import Pace, Turn

PROBE_ROWS = 16
# Estimates above this many times the limit get no second probe: such a probe would itself take long.
HOPELESS = 6
# Turns in one repetition. A slower call has as many as fit its time; up to SLOW_S at least FEWEST_TURNS.
TURNS, FEWEST_TURNS = 6, 3
# A disturbed turn is repeated, up to this many times the turns in total.
PATIENCE = 2
# Outputs that are read after each sample; maximum number of images per turn.
READ_OUTPUTS, DRAWN = 16, 64
# A sample is disturbed if a thread lost its core and the sample took DISTURBED times as long as undisturbed ones.
# A turn is disturbed if most of its samples are, or if it took STALLED times as long as the best turn.
DISTURBED, STALLED = 1.1, 2.0
# A result must be complete when a call returns: the maximum time to read it is the sum of this share of the call, these
# seconds, and the time of a copy at this rate.
READ_SHARE, READ_S, READ_BYTES_PER_S = 0.1, 20e-6, 4e9
# Images that are called twice at the end, to detect a backend that caches its answers.
SEEN_IMAGES = 8


class Layer:
    """Data shared by all contenders of a group: the problem in one direction, its data and its correct results."""

    def __init__(self, given: Conv2dProblem, direction: str, seed: int, folder: Path) -> None:
        self.given, self.direction, self._seed, self._folder = given, direction, seed, folder
        self._made: dict[int, tuple[Expected, str]] = {}

    def cut(self, rows: int) -> tuple[Expected, str]:
        """Integers on the layer cut to ``rows`` output rows, and the path where backends load them."""
        return self._expected(shrunk(self.given, rows), rows)

    def whole(self) -> tuple[Expected, str]:
        """Normal data on the whole layer."""
        return self._expected(self.given, 0)

    def _expected(self, given: Conv2dProblem, rows: int) -> tuple[Expected, str]:
        if rows not in self._made:
            problem = as_forward(given, self.direction)
            expected = Expected(problem, self._seed, integers=rows > 0, every=every(given, self.direction))
            self._made[rows] = expected, exchange.save(self._folder, f"rows{rows}", expected.x, expected.weight)
        return self._made[rows]


class Failed(Exception):
    """A case ends without a time. The arguments are its status and reason."""


@dataclass
class Contender:
    """One running case of a group."""

    case: Case
    worker: Worker
    layer: Layer
    folder: Path
    timeout_s: float
    seconds: float
    rotate_bytes: int
    seed: int
    # The commit of another version of the package; whether the backend is called by public names only.
    version: str = ""
    public: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    status: str = "ok"
    reason: str = ""

    def __post_init__(self) -> None:
        self.turns: list[Turn] = []
        self._wanted, self._scales, self._rng = 0, scales(self.seed), np.random.default_rng(self.seed)

    def prepare(self) -> None:
        """Probe, check and plan; turns follow only if the status is ok."""
        self._guard(self._prepare)

    def turn(self, number: int) -> None:
        """Take one turn, in round ``number``."""
        self._guard(lambda: self._turn(number))

    def last(self) -> None:
        """Compare all outputs once more, after the last turn."""
        if self.status == "ok" and self.turns:
            self._guard(self._last)

    @property
    def wants_turn(self) -> bool:
        """Whether another turn should be taken."""
        if self.status != "ok" or len(self.turns) >= PATIENCE * self._wanted:
            return False
        return len(self.turns) < self._wanted or len(self._undisturbed()[0]) < self._wanted

    def too_fast(self, known: Peaks) -> str:
        """Why the measured time is below the lower bound of this machine; empty if it is not."""
        if self.status != "ok" or not self.turns:
            return ""
        median_s, problem = stats.median(self._counted()), self.layer.whole()[0].problem
        flops_per_s, bytes_per_s = known.most(self.case.threads, problem.dtype)
        executed = self.facts.get("executed_flops")
        # A backend may report a value of any type.
        known_flops = executed if isinstance(executed, (int, float)) else None
        least = least_s(problem, known_flops, flops_per_s, bytes_per_s)
        return f"{median_s:.3g} s per call; this machine needs at least {least:.3g} s" if median_s < least else ""

    def record(self, paces: dict[int, Pace], known: Peaks, environment_id: str) -> Record:
        """The record of the case; ``paces`` are those of the machine, by round."""
        facts = {name: value for name, value in self.facts.items() if name in Record.__struct_fields__}
        if reason := self.too_fast(known):
            self.status, self.reason = "too_fast", reason
        elif self.status == "ok":
            facts |= self._times(paces)
        values = {"case": msgspec.structs.asdict(self.case), "status": self.status, "reason": self.reason}
        try:
            return checked({**values, "environment_id": environment_id, **facts, "version": self.version})
        except StoreError as error:
            return Record(self.case, "error", f"the facts it reported cannot be stored: {error}", environment_id)

    def _guard(self, action: Any) -> None:
        try:
            action()
        except Failed as failed:
            self.status, self.reason = failed.args
        # Errors in the parent: no convolution computes this direction, or the reference does not fit into memory.
        except UnsupportedError as error:
            self.status, self.reason = "unsupported", str(error)
        except MemoryError as error:
            self.status, self.reason = "oom", str(error) or "out of memory"

    def _ask(self, do: str, **order: Any) -> Answer:
        answer = self.worker.ask(do, **order)
        facts = answer.get("facts")
        if isinstance(facts, dict):
            self.facts |= facts
        if answer["status"] != "ok":
            raise Failed(str(answer["status"]), str(answer.get("reason", "")))
        return answer

    def _outputs(self, do: str, expected: Expected, prefix: str = "", **order: Any) -> tuple[Answer, Verdict]:
        """Request outputs and check all of them."""
        out = self.folder / "outputs"
        answer = self._ask(do, out=str(out), **order)
        try:
            y: Array = exchange.outputs(out, answer["shape"], answer["dtype"])
            verdict = expected.whole(y, self.facts["accuracy"], answer.get("scale", 1.0))
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise Failed("crashed", f"its outputs cannot be read: {error}") from None
        if verdict.problem:
            raise Failed("wrong_result", prefix + verdict.problem)
        return answer, verdict

    def _prepare(self) -> None:
        # Without the layer's name: another version may not be able to parse it.
        case = msgspec.structs.asdict(self.case) | {"label": self.case.unnamed_label}
        self._ask("start", case=case, public=self.public)
        estimate = self.facts["estimate_s"] = self._estimate()
        if estimate > self.timeout_s:
            raise Failed(
                "over_budget", f"about {estimate:.3g} s per call, more than the maximum of {self.timeout_s:g} s"
            )
        expected, data = self.layer.whole()
        answer, verdict = self._outputs("ready", expected, data=data, rotate_bytes=self.rotate_bytes)
        self.facts |= {"error": verdict.error, "error_over_bound": verdict.error_over_bound}
        once_s = _number(answer.get("once_s"))
        if once_s > 2 * self.timeout_s:
            raise Failed("over_budget", f"a call took {once_s:.3g} s, more than the maximum of {self.timeout_s:g} s")
        fewest = FEWEST_TURNS if once_s < SLOW_S else 1
        self._wanted = max(fewest, min(TURNS, int(self.seconds / max(once_s, 1e-9))))

    def _estimate(self) -> float:
        """Estimated seconds of a call of the whole layer, from one or two calls of cut layers; also checks these."""
        given, limit = self.layer.given, self.timeout_s
        rows = given.out_size[0]
        cut = ceil(rows / PROBE_ROWS)
        macs, seconds = self._probe(cut)
        estimate = seconds * given.macs / max(macs, 1)
        if not limit < estimate < HOPELESS * limit or 2 * cut >= rows:
            return estimate
        # Scaling also multiplies the fixed cost of a call (for example the transform of the kernels). Before a case is
        # skipped because of it, a second height separates the fixed cost from the cost per row.
        more_macs, more_s = self._probe(2 * cut)
        slope = max(0.0, more_s - seconds) / max(more_macs - macs, 1)
        return min(estimate, more_s + slope * (given.macs - more_macs))

    def _probe(self, rows: int) -> tuple[int, float]:
        """Multiply-adds and seconds of a call of the layer cut to ``rows`` rows; also checks its outputs."""
        expected, data = self.layer.cut(rows)
        answer, _ = self._outputs("probe", expected, rows=rows, data=data)
        return shrunk(self.layer.given, rows).macs, _number(answer.get("call_s"))

    def _turn(self, number: int) -> None:
        expected, _ = self.layer.whole()
        at = self._rng.integers(0, expected.y.size, READ_OUTPUTS)
        answer = self._ask("turn", seconds=self.seconds / TURNS, scales=self._scales[:DRAWN], at=at.tolist())
        try:
            turn = self._read(number, answer)
            drawn = DRAWN - answer["scales_left"]
            self._scales = self._scales[drawn:] + self._scales[:drawn]
            values = np.array(answer["values"], np.float64)
            for got, scale in zip(values, answer["scales"], strict=True):
                if problem := expected.some(got, at, self.facts["accuracy"], scale).problem:
                    raise Failed("wrong_result", f"after timing: {problem}")
        except (KeyError, TypeError, ValueError) as error:
            raise Failed("crashed", f"the answer of its process has no samples: {error!r}"[:200]) from None
        self.turns.append(turn)
        self._suspect()

    def _read(self, number: int, answer: Answer) -> Turn:
        """Parse a turn; fails if its clock does not agree with the parent's."""
        samples_s, iterations = [float(s) for s in answer["samples_s"]], int(answer["iterations"])
        began, ended = float(answer["began"]), float(answer["ended"])
        inside = answer["asked"] <= began <= ended <= answer["answered"]
        if not samples_s or min(samples_s) <= 0 or not inside or sum(samples_s) * iterations > ended - began:
            wall_s = answer["answered"] - answer["asked"]
            raise Failed(
                "wrong_result", f"its clock contradicts that of the parent, by which the turn took {wall_s:.3g} s"
            )
        return Turn(number, samples_s, [int(n) for n in answer["switches"]], iterations, stats.median(answer["read_s"]))

    def _suspect(self) -> None:
        """Fail a backend that computed its results only when they were read, in most turns."""
        problem = self.layer.whole()[0].problem
        bytes_s = prod(problem.output_shape) * np.dtype(problem.dtype).itemsize / READ_BYTES_PER_S
        late = [t.read_s > READ_SHARE * stats.median(t.samples_s) + READ_S + bytes_s for t in self.turns]
        if len(late) >= min(FEWEST_TURNS, self._wanted) and 2 * sum(late) > len(late):
            read_s = stats.median([t.read_s for t in self.turns])
            raise Failed(
                "wrong_result", f"the result was not ready when the call returned: reading it took {read_s:.3g} s"
            )

    def _last(self) -> None:
        answer, _ = self._outputs(
            "last", self.layer.whole()[0], "after timing: ", scales=self._scales[:SEEN_IMAGES]
        )  # fmt: skip
        try:
            fresh_s, seen_s = [float(s) for s in answer["fresh_s"]], [float(s) for s in answer["seen_s"]]
            found = remembers(fresh_s, seen_s)
        except (KeyError, TypeError, ValueError) as error:
            raise Failed("crashed", f"the answer of its process has no times: {error!r}"[:200]) from None
        if found:
            took = f"a new image takes {min(fresh_s):.3g} s, a repeated one {min(seen_s):.3g} s"
            raise Failed("wrong_result", f"{took}: it caches results")

    def _undisturbed(self) -> tuple[dict[int, float], dict[int, float]]:
        """Medians by round: of the turns that count, and of the disturbed turns."""
        calm = [turn for turn in self.turns if not turn.crowded]
        quiet = [s for t in calm for s, n in zip(t.samples_s, t.switches, strict=True) if n == 0]
        # If no turn was calm, the time of an undisturbed sample is unknown.
        limit_s = DISTURBED * stats.median(quiet) if quiet else 0.0
        if calm and not quiet:
            limit_s = DISTURBED * min(s for turn in self.turns for s in turn.samples_s)
        counted, disturbed = dict[int, float](), dict[int, float]()
        medians = {turn.round: stats.median(turn.samples_s) for turn in self.turns}
        stalled_s = STALLED * min(medians.values())
        for turn in self.turns:
            kept = [
                s for s, n in zip(turn.samples_s, turn.switches, strict=True)
                if s <= limit_s or (n == 0 and not turn.crowded)
            ]  # fmt: skip
            if 2 * len(kept) > len(turn.samples_s) and medians[turn.round] <= stalled_s:
                counted[turn.round] = stats.median(kept)
            else:
                disturbed[turn.round] = medians[turn.round]
        if not counted:
            # The case needs one counted turn: the best one counts, all others stay disturbed.
            best = min(disturbed, key=lambda number: disturbed[number])
            counted[best] = disturbed.pop(best)
        return counted, disturbed

    def _counted(self) -> list[float]:
        return list(self._undisturbed()[0].values())

    def _times(self, paces: dict[int, Pace]) -> dict[str, Any]:
        """The time fields of a record, and the machine's peak and yardstick of the same rounds."""
        counted, disturbed = self._undisturbed()
        samples_s = [s for turn in self.turns for s in turn.samples_s]
        turns_s = list(counted.values())
        middle, stalled_s = stats.median(turns_s), STALLED * min([*turns_s, *disturbed.values()])
        mine = [paces[number] for number in counted if number in paces]
        peaks, yardsticks_s = ([p.gflops for p in mine], [p.yardstick_s for p in mine])
        known = [peak for peak in peaks if peak]
        return {
            "samples_s": samples_s, "turns_s": turns_s, "turn_rounds": list(counted),
            "turn_switches": [sum(t.switches) for t in self.turns if t.round in counted],
            "turn_peaks_gflops": known if len(known) == len(counted) else [],
            "turn_yardsticks_s": yardsticks_s if all(yardsticks_s) and len(mine) == len(counted) else [],
            "disturbed_s": list(disturbed.values()), "iterations": self.turns[-1].iterations,
            "stalled_share": sum(s > stalled_s for s in samples_s) / len(samples_s),
            "median_s": middle, "iqr_s": stats.iqr(turns_s), "gflops_effective": self.case.problem.flops / middle / 1e9,
            "fma_peak_gflops": stats.median(known) if known else None,
        }  # fmt: skip


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
