"""Merges two measurements of one case, from different processes, into one record with the turns of both."""

from __future__ import annotations

from msgspec import structs

from ..analysis import stats
from ..store.records import Record


def pooled(first: Record, second: Record, rounds: int) -> Record:
    """A record with the turns of both, two ok records of one case; ``rounds`` is added to the second's rounds."""
    turns_s, samples_s = first.turns_s + second.turns_s, first.samples_s + second.samples_s
    peaks = first.turn_peaks_gflops + second.turn_peaks_gflops
    yardsticks_s = first.turn_yardsticks_s + second.turn_yardsticks_s
    stalled = [(r.stalled_share or 0.0) * len(r.samples_s) for r in (first, second)]
    middle = stats.median(turns_s)
    return structs.replace(
        first, turns_s=turns_s, samples_s=samples_s, disturbed_s=first.disturbed_s + second.disturbed_s,
        turn_rounds=first.turn_rounds + [number + rounds for number in second.turn_rounds],
        turn_switches=first.turn_switches + second.turn_switches,
        turn_peaks_gflops=peaks if len(peaks) == len(turns_s) else [],
        turn_yardsticks_s=yardsticks_s if len(yardsticks_s) == len(turns_s) else [],
        fma_peak_gflops=stats.median(peaks) if peaks else None,
        stalled_share=sum(stalled) / len(samples_s), median_s=middle, iqr_s=stats.iqr(turns_s),
        gflops_effective=first.case.problem.flops / middle / 1e9,
    )  # fmt: skip
