"""Data of a layer, whole or cut to a few rows, on its way to a backend and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inprocess import PROBLEM

from bench.run import contender as contenders
from bench.run import exchange, subject
from bench.run.check import Expected
from bench.run.contender import Layer
from conv_impls import Conv2dProblem
from conv_impls.validation import Pair


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_a_cut_layer_is_tall_enough_for_its_padding(mode: str) -> None:
    problem = Conv2dProblem.from_label(f'mb1ic3ih20oc4oh20kh7ph3pm"{mode}"')
    assert subject.shrunk(problem, 1).out_size[1] == 20


@pytest.mark.parametrize("rows", [1, 2, 5, 99])
@pytest.mark.parametrize(
    "label", ["ic3ih20oc4kh3ph1", "ic3ih20oc4kh5sh2ph2", "ic3ih9oc4kh3ph3sh2", "ic3ih20oc4kh3dh2ph4"]
)
def test_a_cut_layer_keeps_all_but_its_height(label: str, rows: int) -> None:
    problem = Conv2dProblem.from_label(label)
    cut = subject.shrunk(problem, rows)
    assert cut.replace(in_size=problem.in_size) == problem
    assert cut.out_size[1] == problem.out_size[1]
    assert cut.out_size[0] <= problem.out_size[0]
    if rows > problem.out_size[0]:
        assert cut.out_size == problem.out_size


def test_a_layer_is_made_once_for_all_who_take_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    class Counting(Expected):
        def __init__(self, problem: Conv2dProblem, seed: int, integers: bool = False, every: Pair = (1, 1)) -> None:
            super().__init__(problem, seed, integers, every)
            made.append(integers)

    monkeypatch.setattr(contenders, "Expected", Counting)
    layer = Layer(PROBLEM, "fwd", 0, tmp_path)
    assert layer.cut(1)[0] is layer.cut(1)[0] is not layer.cut(2)[0]
    assert layer.whole() == layer.whole()
    assert made == [True, True, False]


def test_data_on_their_way_cannot_be_spoiled_for_the_next_backend(tmp_path: Path) -> None:
    expected, stem = Layer(PROBLEM, "fwd", 0, tmp_path).whole()
    x, weight = exchange.load(stem)
    for array in (x, weight):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    np.testing.assert_array_equal(exchange.load(stem)[0], expected.x)
    np.testing.assert_array_equal(weight, expected.weight)


def test_outputs_of_another_size_are_refused(tmp_path: Path) -> None:
    np.arange(6, dtype=np.float32).tofile(tmp_path / "outputs")
    got = exchange.outputs(tmp_path / "outputs", [2, 3], "float32")
    np.testing.assert_array_equal(got, [[0, 1, 2], [3, 4, 5]])
    for shape, dtype in (([2, 2], "float32"), ([2, 3], "float64")):
        with pytest.raises(ValueError, match="reshape"):
            exchange.outputs(tmp_path / "outputs", shape, dtype)
