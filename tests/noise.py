"""The noise of stored runs, and comparisons simulated with it: what the intervals of `bench.analysis.intervals` meet.

Two repetitions of one stored comparison differ by noise alone. Of each repetition are kept how far it is from the mean
of all (an offset, widened by what the mean takes of it), and the scatter of its turns around its median. A simulated
comparison puts them around a truth that is known.

    python tests/noise.py results/runs/reference* results/runs/networks*    # fits the constants of intervals.py

Limits: one repetition of a simulated comparison never has the offset of another one of the same pair of backends, so
the offsets of several are drawn from comparisons whose turns scatter alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize
from scipy.stats import t as student_t

from bench.analysis.intervals import MAD, Turns
from bench.store.folder import Run

# Comparisons on either side, in order of scatter, that an offset may come from.
ALIKE = 50
Key = tuple[str, int, str]


class Noise(NamedTuple):
    """One repetition of one comparison, as logarithms."""

    offset: float
    scatter: tuple[float, ...]


class Layer(NamedTuple):
    """One layer of a comparison: how often the network has it, its time, and the noise of each repetition."""

    times: int
    time_s: float
    noise: tuple[Noise, ...]


def turns_of(folder: Path) -> dict[Key, dict[tuple[str, int], dict[int, dict[int, float]]]]:
    """(workload, threads, backend) -> (label, count) -> repetition -> round -> seconds, where all went well."""
    found: dict[Key, dict[Any, dict[int, dict[int, float]]]] = {}
    for record in Run.open(folder).records():
        case = record.case
        if record.status == "ok" and len(record.turns_s) >= 6:
            rounds = record.turn_rounds or range(len(record.turns_s))
            layers = found.setdefault((case.workload, case.threads, case.backend), {})
            turns = dict(zip(rounds, record.turns_s, strict=True))
            layers.setdefault((case.label, case.count), {})[case.repetition] = turns
    return found


def comparisons(folder: Path, paired: bool = True) -> Iterator[list[Layer]]:
    """Every two backends of a stored run on a network, or each backend alone, layer by layer."""
    found = turns_of(folder)
    for one in found:
        others = [other for other in found if other[:2] == one[:2] and other[2] > one[2]] if paired else [None]
        for other in others:
            layers = [
                layer
                for (label, count), a in found[one].items()
                if (layer := _layer(count, a, found[other].get((label, count), {}) if other else None))
            ]
            if layers:
                yield layers


def _layer(count: int, a: dict[int, dict[int, float]], b: dict[int, dict[int, float]] | None) -> Layer | None:
    each: list[tuple[float, np.ndarray]] = []
    for repetition, turns in a.items():
        other = dict.fromkeys(turns, 1.0) if b is None else b.get(repetition, {})
        logs = np.log([turns[key] / other[key] for key in turns if key in other])
        if len(logs) >= 6:
            each.append((float(np.median(logs)), logs - np.median(logs)))
    if len(each) < 2:
        return None
    middle = np.mean([log for log, _ in each])
    wider = np.sqrt(len(each) / (len(each) - 1))
    noise = tuple(Noise(float(wider * (log - middle)), tuple(map(float, rest))) for log, rest in each)
    return Layer(count, float(np.median([time for turns in a.values() for time in turns.values()])), noise)


def expected(noise: Noise) -> float:
    """The variance that the scatter of its turns gives a repetition's median."""
    scatter = MAD * float(np.median(np.abs(noise.scatter)))
    return float(np.pi / 2 * scatter**2 / len(noise.scatter))


def layer_comparison(
    pool: Sequence[Noise], truth: float, repetitions: int, rng: np.random.Generator
) -> tuple[Turns, Turns]:  # fmt: skip
    """Turns of two backends, the first of which takes ``truth`` times as long; ``pool`` is in order of scatter."""
    at = int(rng.integers(len(pool)))
    drawn = [pool[min(max(at + int(step), 0), len(pool) - 1)] for step in rng.integers(-ALIKE, ALIKE + 1, repetitions)]
    return _turns(drawn, truth, rng)


def network_comparison(
    layers: Sequence[Layer], truth: float, rng: np.random.Generator
) -> list[tuple[float, Turns, Turns]]:  # fmt: skip
    """One repetition of a whole network, all layers with the noise of one stored repetition."""
    number, sign = int(rng.integers(min(len(layer.noise) for layer in layers))), float(rng.choice([-1.0, 1.0]))
    return [
        (layer.times, *_turns([layer.noise[number]], truth, rng, sign, layer.time_s)) for layer in layers
    ]  # fmt: skip


def _turns(
    noise: Sequence[Noise], truth: float, rng: np.random.Generator, sign: float | None = None, time_s: float = 1.0
) -> tuple[Turns, Turns]:
    """Turns around a truth; offsets are as likely above as below, all of a network on one side."""
    a, b = {}, {}
    for repetition, one in enumerate(noise, 1):
        side = sign or float(rng.choice([-1.0, 1.0]))
        for number, rest in enumerate(one.scatter):
            a[repetition, number] = time_s * truth * float(np.exp(side * one.offset + rest))
            b[repetition, number] = time_s
    return a, b


def fitted(found: Iterable[list[Layer]]) -> tuple[float, float, float]:
    """Place, the factor on the scatter, and the degrees of freedom that make the offsets of layers most likely."""
    pairs = [
        (a, b, len(layer.noise)) for layers in found for layer in layers for a, b in combinations(layer.noise, 2)
    ]  # fmt: skip
    # Offsets are wider than repetitions are apart: see `_layer`.
    apart = np.array([(a.offset - b.offset) * np.sqrt((n - 1) / n) for a, b, n in pairs])
    scatter = np.array([expected(a) + expected(b) for a, b, _ in pairs])

    def surprise(logs: np.ndarray) -> float:
        place, factor, freedom = np.exp(logs)
        scale = np.sqrt(2 * place**2 + factor**2 * scatter)
        return float(np.log(scale).sum() - student_t.logpdf(apart / scale, freedom).sum())

    place, factor, freedom = np.exp(optimize.minimize(surprise, np.log([0.03, 1.0, 3.0]), method="Nelder-Mead").x)
    return float(place), float(factor), float(freedom)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders with two repetitions or more")
    runs = parser.parse_args().runs
    for paired in (True, False):
        place, factor, freedom = fitted(layers for run in runs for layers in comparisons(run, paired))
        words = "two backends of a run" if paired else "a backend alone"
        print(f"{words}: place {place:.3f}, {freedom:.1f} degrees of freedom, {factor:.2f} times the scatter of turns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
