"""`make bench-peers-all`: the networks that `make bench-peers` leaves, in one run that each further call continues."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bench.analysis.networks import NO_NETWORKS
from bench.run.options import Options
from bench.run.request import Request
from conv_impls import workloads

ROOT = Path(__file__).parent.parent
FOUR = {"resnet50", "vgg16", "mobilenet_v2", "convnext_tiny"}


def session(target: str, *variables: str) -> dict[str, str]:
    """The options of the harness in what make would run, by name."""
    # Not what a make that runs these tests was given.
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "RUN")}
    command = ["make", "-n", target, "THREADS=1,2", *variables]
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.replace("\\\n", " ").splitlines() if "--bench-workload" in line)
    words = shlex.split(line.split(";")[0])
    return {
        word.removeprefix("--bench-"): words[at + 1] for at, word in enumerate(words) if word.startswith("--bench-")
    }


def networks(target: str) -> set[str]:
    return set(session(target)["workload"].split(","))


def test_every_network_is_measured_by_one_of_the_two_commands() -> None:
    assert networks("bench-peers") == FOUR | {"sizes"}
    rest = networks("bench-peers-all")
    assert not rest & FOUR
    assert rest | FOUR == set(workloads.available()) - set(NO_NETWORKS) | {"vit_patch"}


def test_make_bench_measures_what_it_did() -> None:
    assert set(Options.workload.split(",")) == FOUR | {"sizes"}
    assert Options.budget == 280


def test_a_second_call_continues_the_run_of_the_first(tmp_path: Path) -> None:
    first, named = session("bench-peers-all"), session("bench-peers-all", f"RUN={tmp_path}")
    assert (first["out"], named["out"]) == ("results/runs/other_networks", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    again = session("bench-peers-all", f"RUN={tmp_path}")
    assert again.pop("resume") == named.pop("out") == str(tmp_path)
    assert again == named, "the same options, which resuming compares"
    assert session("bench-peers", f"RUN={tmp_path}")["out"] == str(tmp_path), "that one makes a new run each time"


def test_a_part_ends_within_the_hour_and_the_line_of_the_target_says_when() -> None:
    (line,) = (line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("bench-peers-all: $"))
    minutes = re.search(r"(\d+) minutes at most", line)
    assert minutes is not None
    assert float(session("bench-peers-all")["budget"]) == 60 * int(minutes[1])


@pytest.mark.parametrize("target", ["bench-peers", "bench-peers-all"])
def test_its_options_are_those_of_a_run(target: str, tmp_path: Path) -> None:
    given = session(target, "THREADS=1")
    given |= {"backends": "auto,numpy_strided"}
    request = Request.new(
        Options(
            given["workload"], given["backends"], given["threads"], repetitions=int(given["repetitions"]),
            seconds=float(given["seconds"]), budget=float(given["budget"]),
        ),
        tmp_path,
    )  # fmt: skip
    assert {case.workload for case in request.cases} == networks(target)
