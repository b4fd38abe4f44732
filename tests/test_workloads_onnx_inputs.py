"""Sizes of a model's inputs: stale ones never win, open ones are given by size, contradictions are refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import helper
from onnx_models import conv, integers, only, save, value, weight

from conv_impls import __main__ as command
from conv_impls import workloads
from conv_impls.workloads import WorkloadError

ONE = [weight("w", 4, 3, 3, 3)]
OPEN = ("batch", 3, "height", "width")
TWO = [conv("x", "w", "y", pads=[1] * 4, name="c1"), conv("y", "v", "z", name="c2")]
BOTH = [weight("w", 8, 3, 3, 3), weight("v", 4, 8, 3, 3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def refusal(path: Path, **options: Any) -> str:
    """The one line that refuses the model."""
    with pytest.raises(WorkloadError) as caught:
        workloads.load(str(path), **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("inner", [(), (1, 8, 16, 16), (1, 8, 99, 99), ("batch", 8, 16, 16)])
@pytest.mark.parametrize(("shape", "options", "expected"), [
    (("batch", 3, 16, 16), {"batch": 8}, (8, 16, 16)), (("batch", 3, 16, 16), {}, (1, 16, 16)),
    ((1, 3, 32, 32), {}, (1, 32, 32)), (OPEN, {"size": "2,3,48,20"}, (2, 48, 20)),
    ((3, 3, 16, 16), {"batch": 6}, (6, 16, 16)),
])  # fmt: skip
def test_what_an_earlier_export_left_in_the_file_never_wins(
    path: Path, inner: Sequence[Any], shape: Sequence[Any], options: dict[str, Any], expected: tuple[int, ...]
) -> None:
    """onnx#2898, glow#2247: tools that change the inputs leave value_info and sizes of outputs as they were."""
    save(path, TWO, BOTH, shape, inner=[value("y", *inner)] if inner else [], output=(1, 4, 14, 14))
    first, second = (layer.problem for layer in workloads.load(str(path), **options))
    assert (first.batch, *first.in_size) == (second.batch, *second.in_size) == expected


def test_stale_sizes_inside_a_branch_do_not_win_either(path: Path) -> None:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["t"])], "b", [], [value("t", 1, 3, 99, 99)])
    nodes = [helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch), conv("i", "w", "y")]
    save(path, nodes, [*ONE, integers("c", 1)], ("n", 3, 16, 16))
    assert only(str(path), batch=3).problem.input_shape == (3, 3, 16, 16)


def test_an_old_file_that_lists_its_weights_among_the_inputs(path: Path) -> None:
    save(path, [conv("x", "w", "y")], ONE, (1, 3, 8, 8), inputs=[value("w", 9, 9, 9, 9)])
    assert only(str(path)).problem.weight_shape == (4, 3, 3, 3)


@pytest.mark.parametrize("shape", [("time", 80), (None, 80), (0, 80)])
def test_only_the_first_of_four_dimensions_is_a_batch(path: Path, shape: Sequence[Any]) -> None:
    unsqueeze = helper.make_node("Unsqueeze", ["x", "axes"], ["u"])
    save(path, [unsqueeze, conv("u", "w", "y")], [weight("w", 8, 1, 3, 3), integers("axes", 0, 1)], shape)
    assert re.search(r"input 'x' leaves open dimension 0 \((time|\?)\); .*: --size 224,80$", refusal(path))
    assert "batch: this model has no input of four dimensions" in refusal(path, batch=16)
    assert only(str(path), size="100,80").problem.input_shape == (1, 1, 100, 80)


@pytest.mark.parametrize("word", ["N", "?", "None", 0, -1, None])
def test_a_batch_of_no_number_is_open_and_no_other_dimension_is_a_batch(path: Path, word: Any) -> None:
    save(path, [conv("x", "w", "y")], ONE, (word, 3, word, word))
    assert "leaves open dimension 2" in refusal(path, batch=8)
    save(path, [conv("x", "w", "y")], ONE, (word, 3, 16, 16))
    assert [only(str(path), batch=batch).problem.batch for batch in (None, 4)] == [1, 4]


@pytest.mark.parametrize(("size", "batch", "expected"), [
    ("1,3,48,192", None, (1, 3, 48, 192)), ("x=1,3,48,192", None, (1, 3, 48, 192)),
    (" 2, 3,48,192 ", None, (2, 3, 48, 192)),
    ("8,3,48,192", 8, (8, 3, 48, 192)), ("N,3,48,192", 8, (8, 3, 48, 192)), ("x=N,3,48,192", None, (1, 3, 48, 192)),
    ("1,3,048,192", None, (1, 3, 48, 192)),
])  # fmt: skip
def test_size_fixes_what_is_open(path: Path, size: str, batch: int | None, expected: tuple[int, ...]) -> None:
    save(path, [conv("x", "w", "y")], ONE, OPEN)
    assert only(str(path), size=size, batch=batch).problem.input_shape == expected


def test_size_may_repeat_what_the_file_fixes(path: Path) -> None:
    save(path, [conv("x", "w", "y")], ONE, (2, 3, 16, "width"))
    shapes = [only(str(path), size=size, batch=batch).problem.input_shape
              for size, batch in (("2,3,16,9", None), ("6,3,16,9", 6), ("N,3,16,9", 6))]  # fmt: skip
    assert shapes == [(2, 3, 16, 9), (6, 3, 16, 9), (6, 3, 16, 9)]


@pytest.mark.parametrize(("size", "batch", "words"), [
    ("1,3,48,192", 8, "size: 1 is the batch of input 'x', but --batch is 8; .* --size N,3,48,192$"),
    ("1,3,48", None, r"size: expected 4 numbers for x \(batch,3,height,width\), got 1,3,48$"),
    ("x=1,3,48,192,5", None, r"size: expected 4 numbers for x"),
    ("z=1,3,4,4", None, "the name of an input: x .*; got 'z'$"),
    ("1,4,48,192", None, "size: expected 3, which the model fixes, as dimension 1 of input 'x', got 4$"),
    ("1,3,2,192", None, "Conv y: Conv2dProblem: kernel_size: expected a kernel that fits"),
])  # fmt: skip
def test_a_size_that_contradicts_is_refused(path: Path, size: str, batch: int | None, words: str) -> None:
    save(path, [conv("x", "w", "y")], ONE, OPEN)
    assert re.search(words, refusal(path, size=size, batch=batch))


@pytest.mark.parametrize("size", [
    "1,3,0,4", "1,3,-1,4", "1,3,a,4", "1,3,4.5,4", ",", "x=", "=", "1,3,,4", "1,3,4,4,", "1,3,2147483648,4",
    "1,N,8,8", "N,3", f"1,3,{'9' * 5000},4", "\uff11,3,8,8", "x=1,3,8,8,x=1,3,8,8", "1,3,8,8,x=1,3,8,8", "1e3,3,8,8",
    "1 3 8 8", "\x1b[31m",
])  # fmt: skip
def test_a_size_that_is_none_is_refused(path: Path, size: str) -> None:
    save(path, [conv("x", "w", "y")], ONE, OPEN)
    with pytest.raises(WorkloadError, match=r"^size: expected (numbers >= 1|N, the batch|one size per input)"):
        workloads.load(str(path), size=size)


@pytest.mark.parametrize("workload", ["resnet50", "ic3ih8oc4kh3", "none.txt"])
def test_size_is_for_models(workload: str) -> None:
    with pytest.raises(WorkloadError, match="size: expected an ONNX model"):
        workloads.load(workload, size="1,3,48,192")


def test_several_inputs_are_told_apart_by_their_names(path: Path) -> None:
    nodes = [conv("x", "w", "a"), conv("image.2", "w", "y")]
    save(path, nodes, ONE, ("n", 3, "h", "w"), inputs=[value("image.2", "n", 3, 9, "v"), value("length", "n")])
    assert "--size x=1,3,224,224,image.2=1,3,9,224" in refusal(path)
    assert "name=... for one of the inputs: x (n,3,h,w), image.2 (n,3,9,v), length (n)" in refusal(path, size="1,3,8,8")
    assert "got 1 in input 'x' and 2 in input 'image.2'" in refusal(path, size="x=1,3,8,8,image.2=2,3,9,9")
    assert "got 3 in input 'length' and 2 in input 'x'" in refusal(
        path, size="length=3,x=N,3,8,8,image.2=N,3,9,9", batch=2
    )
    layers = workloads.load(str(path), size="x=2,3,8,8,image.2=N,3,9,7")
    assert [layer.problem.input_shape for layer in layers] == [(2, 3, 8, 8), (2, 3, 9, 7)]


def test_an_input_that_no_convolution_needs_may_stay_open(path: Path) -> None:
    save(path, [conv("x", "w", "y")], ONE, (1, 3, 8, 8), inputs=[value("ids", "n", "t")])
    assert only(str(path)).problem.in_size == (8, 8)


@pytest.mark.parametrize("name", ["x", "in put, 1", "a=b", "x:0", "'; rm -rf /", "é層"])
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("batch", [None, 4])
def test_the_message_that_asks_for_sizes_can_be_copied(path: Path, name: str, others: int, batch: int | None) -> None:
    inputs = [value(name, "n", 3, "h", "w"), *[value("z", "n", 3, "h", 7)] * others]
    save(path, [conv(name, "w", "y"), *[conv("z", "w", "t")] * others], ONE, (1, 3, 8, 8), inputs=inputs)
    asked = refusal(path, batch=batch).partition(": --size ")[2]
    (size,) = shlex.split(asked)
    assert {layer.problem.batch for layer in workloads.load(str(path), batch=batch, size=size)} == {batch or 1}


def test_the_example_is_one_that_the_model_takes(path: Path) -> None:
    beside = helper.make_node("Concat", ["x", "rows"], ["r"], axis=1)
    weights = [weight("rows", 1, 3, 64, 16), weight("w", 4, 6, 3, 3)]
    save(
        path, [conv("x", "v", "a"), beside, conv("r", "w", "y")], [*weights, weight("v", 4, 3, 1, 1)], ("n", 3, "h", 16)
    )
    assert refusal(path).endswith("--size 1,3,64,16")


def test_size_is_what_the_shapes_inside_are_computed_from(path: Path) -> None:
    """ONNX's inference alone gives up at this Reshape, as at one of PP-OCRv4's."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Slice", ["s", "zero", "two"], ["n3"]),
        helper.make_node("Slice", ["s", "two", "three"], ["h"]),
        helper.make_node("Mul", ["h", "two"], ["h2"]),
        helper.make_node("Concat", ["n3", "h2", "minus"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["r"]),
        conv("r", "w", "y"),
    ]
    constants = [integers("zero", 0), integers("two", 2), integers("three", 3), integers("minus", -1)]
    save(path, nodes, [*ONE, *constants], OPEN)
    assert only(str(path), size="2,3,12,20").problem.input_shape == (2, 3, 24, 10)


@pytest.mark.parametrize("name", ["warmup", "tune"])
def test_the_library_s_commands_take_a_size(path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(path, [conv("x", "w", "y")], ONE, OPEN)
    for size, words in (("", "for example: --size 1,3,224,224"), ("1,3,4", "size: expected 4 numbers")):
        with pytest.raises(SystemExit) as done:
            command.main([name, "--workload", str(path), "--size", size])
        assert done.value.code == 2
        assert words in capsys.readouterr().err
    if name == "warmup":
        assert command.main([name, "--workload", str(path), "--size", "1,3,9,9", "--threads", "1"]) == 0


def test_two_models_take_one_size(tmp_path: Path) -> None:
    from bench.run.options import UsageError, read_workloads

    for name in "ab":
        save(tmp_path / f"{name}.onnx", [conv("x", "w", "y")], ONE, OPEN)
    both = f"{tmp_path}/a.onnx,{tmp_path}/b.onnx"
    found = read_workloads(f"{both},smoke", size="1,3,9,9")
    assert [workload.layers[0].problem.in_size for workload in found[:2]] == [(9, 9)] * 2
    with pytest.raises(UsageError, match="--size: expected an ONNX model in --workload"):
        read_workloads("smoke", size="1,3,9,9")
    save(tmp_path / "b.onnx", [conv("x", "w", "y")], ONE, (1, 3, 8, 8))
    with pytest.raises(WorkloadError, match=r"b\.onnx: size: expected 8, which the model fixes"):
        read_workloads(both, size="1,3,9,9")


def test_a_file_without_opsets_is_read_as_of_the_first(path: Path) -> None:
    save(path, [conv("x", "w", "y")], ONE, (1, 3, 8, 8))
    model = onnx.load(path)
    del model.opset_import[:]
    model.ir_version = 3
    onnx.save(model, path)
    assert only(str(path)).problem.out_size == (6, 6)
