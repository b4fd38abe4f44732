"""`random:N:SEED`: the same layers everywhere, each with an output and within bounds, of the kinds networks have."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from effort import Effort

from bench.run.options import Options, UsageError, read_layers
from conv_impls import Conv2dProblem, workloads
from conv_impls import __main__ as command
from conv_impls.workloads import Layer, WorkloadError, drawn

# Of the labels of random:60:7. It has the same value on every platform and Python, with every NumPy.
DIGEST = "b176b4c918c9bb8b"


def digest(layers: list[Layer]) -> str:
    return hashlib.sha256("\n".join(layer.problem.label for layer in layers).encode()).hexdigest()[:16]


def faults(layers: list[Layer]) -> list[str]:
    """What the documentation of the drawn layers rules out."""
    found = []
    for layer in layers:
        p = layer.problem
        rules = {
            "empty": prod(p.output_shape) > 0,
            "flops": p.flops <= 4 * 10**9,
            "bytes": 4 * (prod(p.input_shape) + prod(p.weight_shape) + prod(p.output_shape)) <= 256 * 10**6,
            "batch": 1 <= p.batch <= 16,
            "dtype": p.dtype == "float32",
            "name": layer.name == p.name and layer.count == 1,
        }
        found += [f"{layer.name}: {name}" for name, fine in rules.items() if not fine]
    twice = len(layers) - len({layer.problem.replace(name="").label for layer in layers})
    return found + ["twice"] * twice


def test_the_same_seed_draws_the_same_layers_on_every_machine() -> None:
    layers = workloads.load("random:60:7")
    assert digest(layers) == DIGEST
    assert digest(layers) != digest(workloads.load("random:60:8"))
    assert workloads.load("random:0060:007") == layers
    assert {layer.workload for layer in layers} == {"random:60:7"}


def test_a_longer_workload_begins_with_a_shorter_one() -> None:
    longer = [(layer.name, layer.problem) for layer in workloads.load("random:40:3")]
    assert [(layer.name, layer.problem) for layer in workloads.load("random:15:3")] == longer[:15]


def test_numpy_has_no_part_in_it() -> None:
    code = """
        import random
        import numpy as np
        class Only(random.Random):
            def getrandbits(self, k): raise AssertionError
        random.Random, np.random.random, np.random.default_rng = Only, None, None
        from conv_impls.workloads import load
        print(len(load("random:5:1")))
    """
    text = "\n".join(line.removeprefix("        ") for line in code.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.strip() == "5", done.stderr


def test_every_layer_has_an_output_and_keeps_within_bounds(effort: Effort) -> None:
    for seed in range(effort.seed, effort.seed + 2 + effort.rounds // 8):
        layers = workloads.load(f"random:300:{seed}")
        assert len(layers) == 300
        assert faults(layers) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda p: p.replace(batch=4096), "flops"), (lambda p: p.replace(batch=0), "empty"),
        (lambda p: p.replace(batch=17), "batch"), (lambda p: p.replace(dtype="float64"), "dtype"),
        (lambda p: p.replace(name="other"), "name"),
        (lambda p: p.replace(batch=1, in_channels=2, out_channels=1, groups=1, in_size=(9999, 9999)), "bytes"),
    ],
)  # fmt: skip
def test_a_layer_that_breaks_a_rule_would_be_seen(change: Callable[[Conv2dProblem], Conv2dProblem], fault: str) -> None:
    first, *rest = workloads.load("random:20:1")
    (seen,) = {text.rsplit(": ")[-1] for text in faults([replace(first, problem=change(first.problem)), *rest])} & {
        fault
    }
    assert seen == fault
    assert faults([first, first]) == ["twice"]


def test_the_layers_are_of_the_kinds_and_shares_that_are_documented() -> None:
    problems = [layer.problem for layer in workloads.load("random:1000:5")]
    kinds = Counter(layer.name.split()[1] for layer in workloads.load("random:1000:5"))
    assert set(kinds) == set(drawn.KINDS)
    assert sum(drawn.KINDS.values()) == 100
    for kind, share in drawn.KINDS.items():
        assert 0.4 * share < kinds[kind] / 10 < 2 * share, kind
    assert {p.batch for p in problems} == {1, *drawn.BATCHES}
    assert {1, 2, 4} <= {p.stride[0] for p in problems}
    assert {p.dilation[0] for p in problems} == {1, *drawn.DILATIONS}
    assert {2, 4, 8, 16, 32} <= {p.groups for p in problems}
    assert {(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (11, 11)} <= {p.kernel_size for p in problems}
    assert {1, 3} <= {p.in_channels for p in problems}
    assert any(p.groups == p.in_channels and p.out_channels == 2 * p.groups for p in problems)
    assert any(a != b for p in problems for a, b in p.padding), "TensorFlow's same"
    assert 0.1 < sum(p.in_size[0] != p.in_size[1] for p in problems) / 1000 < 0.25
    assert max(max(p.in_size[0] / p.in_size[1], p.in_size[1] / p.in_size[0]) for p in problems) <= 2


def test_dice_take_every_value_as_often_as_its_weight_says() -> None:
    dice = drawn.Dice(1)
    assert Counter(dice.weighted("abc", (1, 0, 3)) for _ in range(400)).keys() == {"a", "c"}
    assert {dice.below(3) for _ in range(100)} == {0, 1, 2}
    assert 60 < sum(dice.happens(1, 4) for _ in range(400)) < 140


WRONG = [
    "random:", "random:5", "random:5:", "random::5", "random:0:1", "random:x:1", "random:5:x", "random:5:-1",
    "random:-5:1", "random:1001:1", "random:5:4294967296", f"random:{'9' * 5000}:1", f"random:5:{'9' * 5000}",
    "random:5:1:2", "random:5:1 ", "random: 5:1", "random:5.0:1", "random:1e2:1", "random:٣:1", "random:5:1.onnx",
    "random:5:1.csv", "random:5:\n1",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_drawn_gets_one_line(text: str) -> None:
    with pytest.raises(
        WorkloadError, match=r"^expected random:N:SEED with N from 1 to 1000 and SEED from 0 to 4294967295"
    ):
        workloads.load(text)
    with pytest.raises(WorkloadError) as error:
        workloads.read(text)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 250


def test_limits_themselves_are_fine() -> None:
    assert len(workloads.load("random:1:0")) == len(workloads.load("random:1:4294967295")) == 1
    assert len(workloads.load("random:1000:1")) == 1000


def test_an_unknown_name_leads_to_the_form() -> None:
    with pytest.raises(WorkloadError, match=r"did you mean 'random:N:SEED'\? known: .*, random:N:SEED; or give a file"):
        workloads.load("random")


def test_batch_and_dtype_replace_those_that_were_drawn() -> None:
    layers = workloads.load("random:30:2", batch=3, dtype="float64")
    assert {(layer.problem.batch, layer.problem.dtype) for layer in layers} == {(3, "float64")}
    assert [layer.name for layer in layers] == [layer.name for layer in workloads.load("random:30:2")]
    with pytest.raises(WorkloadError, match="size: expected an ONNX model"):
        workloads.load("random:3:1", size="1,3,8,8")


def test_a_run_takes_drawn_layers_beside_a_network() -> None:
    layers = read_layers("smoke, random:3:1,random:2:2")
    assert [layer.workload for layer in layers] == ["smoke"] * 4 + ["random:3:1"] * 3 + ["random:2:2"] * 2
    cases = Options(workload="random:4:1", backends="numpy_strided", threads="1", layers=" k1x1 ").cases()
    assert {case.workload for case in cases} == {"random:4:1"}
    with pytest.raises(UsageError, match=r"layer .* of 'random:3:1' is used twice"):
        read_layers("random:3:1,random:03:1")


def test_the_library_commands_take_drawn_layers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["tune", "--workload", "random:0:1"])
    assert "expected random:N:SEED with N from 1" in capsys.readouterr().err
