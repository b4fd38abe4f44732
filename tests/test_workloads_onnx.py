"""A user's ONNX model as a workload: its 2-D convolutions with their sizes, and one clear line for what is wrong."""

from __future__ import annotations

import logging
import random
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from effort import Effort
from onnx import TensorProto, helper, numpy_helper
from onnx_models import FLOAT, conv, only, save, weight

from conv_impls import __main__ as command
from conv_impls import workloads
from conv_impls.workloads import WorkloadError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def test_every_attribute_arrives(path: Path) -> None:
    node = conv("x", "w", "y", name="c", strides=[2, 1], pads=[1, 2, 3, 4], dilations=[1, 2], group=3)
    layer = only(save(path, [node], [weight("w", 6, 1, 3, 2)]))
    p = layer.problem
    assert (layer.workload, layer.name, layer.count, p.name) == ("net", "c", 1, "c")
    assert (p.input_shape, p.weight_shape, p.groups) == ((1, 3, 17, 20), (6, 1, 3, 2), 3)
    assert (p.stride, p.padding, p.dilation) == ((2, 1), ((1, 3), (2, 4)), (1, 2))


def test_defaults_are_those_of_the_operator(path: Path) -> None:
    p = only(save(path, [conv("x", "w", "y")], [weight("w", 4, 3, 3, 5)])).problem
    assert (p.stride, p.padding, p.dilation, p.groups, p.out_size) == ((1, 1), ((0, 0), (0, 0)), (1, 1), 1, (15, 16))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), list(product([1, 2, 3, 6], [1, 2, 3], [1, 2])))
def test_auto_pad_gives_the_sizes_onnx_infers(path: Path, mode: str, kernel: int, stride: int, dilation: int) -> None:
    node = conv("x", "w", "y", auto_pad=mode, strides=[stride, 1], dilations=[dilation, 1])
    save(path, [node], [weight("w", 4, 3, kernel, 2)])
    graph = onnx.shape_inference.infer_shapes(onnx.load(path)).graph
    inferred = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    p = only(str(path)).problem
    assert list(p.output_shape) == inferred
    (top, bottom), (left, right) = p.padding
    if mode == "SAME_UPPER":
        assert (bottom - top in (0, 1), right - left) == (True, 1)
    if mode == "SAME_LOWER":
        assert (top - bottom in (0, 1), left - right) == (True, 1)


def test_equal_problems_are_merged_under_the_first_name(path: Path) -> None:
    nodes = [conv("x", "w", "a", name="one", pads=[1] * 4), conv("a", "w", "b", name="two", pads=[1] * 4)]
    nodes += [conv("b", "w", "c", name="three"), conv("b", "v", "d", name="three"), conv("c", "v", "y")]
    layers = workloads.load(save(path, nodes, [weight("w", 3, 3, 3, 3), weight("v", 5, 3, 1, 1)]))
    assert [(layer.name, layer.count) for layer in layers] == [("one", 2), ("three", 1), ("three:2", 1), ("y", 1)]


@pytest.mark.parametrize(("shape", "batch", "expected"), [
    (("N", 3, 8, 8), None, 1), (("N", 3, 8, 8), 5, 5), ((None, 3, 8, 8), 5, 5), ((-1, 3, 8, 8), 5, 5),
    ((2, 3, 8, 8), None, 2), ((2, 3, 8, 8), 5, 5),
])  # fmt: skip
def test_batch_fills_an_open_dimension_and_replaces_a_fixed_one(
    path: Path, shape: Sequence[Any], batch: int | None, expected: int
) -> None:
    save(path, [conv("x", "w", "y")], [weight("w", 4, 3, 3, 3)], shape)
    assert only(str(path), batch=batch).problem.batch == expected


@pytest.mark.parametrize("first", ["N", 2])
def test_a_batch_folded_inside_the_model_grows_with_it(path: Path, first: int | str) -> None:
    """A model of video treats the frames of a clip as a batch."""
    frames = helper.make_node("Reshape", ["x", "shape"], ["f"])
    to = numpy_helper.from_array(np.array([-1, 3, 8, 8]), "shape")
    weights = [weight("w", 4, 3, 3, 3), to]
    assert only(save(path, [frames, conv("f", "w", "y")], weights, (first, 12, 8, 8)), batch=6).problem.batch == 24


def test_sizes_follow_the_ops_between(path: Path) -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["a"], ["s"], start=2),
        helper.make_node("Concat", ["nc", "s"], ["t"], axis=0),
        helper.make_node("Reshape", ["a", "t"], ["b"]),
        conv("b", "w", "y"),
    ]
    fixed = numpy_helper.from_array(np.array([1, 3]), "nc")
    assert only(save(path, nodes, [weight("w", 4, 3, 3, 3), fixed])).problem.in_size == (8, 10)


def test_a_weight_may_be_a_constant_or_computed(path: Path) -> None:
    constant = helper.make_node("Constant", [], ["w"], value=weight("", 4, 3, 3, 3))
    dequantized = helper.make_node("DequantizeLinear", ["q", "scale"], ["v"])
    q = numpy_helper.from_array(np.ones((4, 3, 5, 5), np.int8), "q")
    scale = numpy_helper.from_array(np.float32(1), "scale")
    nodes = [constant, dequantized, conv("x", "w", "a"), conv("x", "v", "y")]
    layers = workloads.load(save(path, nodes, [q, scale]))
    assert [layer.problem.kernel_size for layer in layers] == [(3, 3), (5, 5)]


@pytest.mark.parametrize(("dtype", "kind", "expected"), [
    ("float32", FLOAT, "float32"), ("float64", TensorProto.DOUBLE, "float64"),
    ("float16", TensorProto.FLOAT16, "float32"),
])  # fmt: skip
def test_the_dtype_is_the_models(
    path: Path, dtype: str, kind: int, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(path, [conv("x", "w", "y")], [weight("w", 4, 3, 3, 3, dtype=dtype)], kind=kind)
    assert only(str(path)).problem.dtype == expected
    assert ("1 Conv have a dtype other than float32 or float64" in caplog.text) == (dtype == "float16")
    assert only(str(path), dtype="float64").problem.dtype == "float64"


def test_what_is_left_out_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    yes = helper.make_tensor_value_info("t", FLOAT, None)
    branch = helper.make_graph([conv("x", "w", "t")], "branch", [], [yes])
    nodes = [
        helper.make_node("If", ["cond"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("ConvTranspose", ["x", "w"], ["u"]),
        conv("z", "w3", "v"),
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Resize", ["x", "", "", "n"], ["r"]),
        conv("r", "w", "q"),
        conv("x", "w", "y"),
    ]
    tensors = [weight("w", 3, 3, 3, 3), weight("w3", 4, 3, 3, 3, 3), weight("z", 1, 3, 8, 8, 8)]
    assert only(save(path, nodes, [*tensors, numpy_helper.from_array(np.array(True), "cond")])).name == "y"
    assert caplog.record_tuples == [("conv_impls.workloads.onnx_model", logging.WARNING, (
        f"{path}: 1 of 6 convolutions; 2 are inside If, 1 is transposed (ConvTranspose), 1 is 3-D, "
        "1 has sizes known only at run time"
    ))]  # fmt: skip


def test_functions_of_the_model_are_opened(path: Path) -> None:
    block = helper.make_function(
        "mine", "Block", ["a", "b"], ["c"], [conv("a", "b", "c", name="inner")], [helper.make_opsetid("", 17)]
    )
    nodes = [helper.make_node("Block", ["x", "w"], ["y"], domain="mine")]
    assert only(save(path, nodes, [weight("w", 4, 3, 3, 3)], functions=[block])).problem.kernel_size == (3, 3)


def test_weights_outside_the_file_are_not_opened(path: Path) -> None:
    nodes = [conv("x", "w", "y")]
    save(path, nodes, [weight("w", 64, 3, 16, 16)])
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    (path.parent / "weights").unlink()
    assert only(str(path)).problem.weight_shape == (64, 3, 16, 16)


def test_large_weights_are_not_needed(path: Path) -> None:
    assert only(save(path, [conv("x", "w", "y")], [weight("w", 512, 3, 16, 16)])).problem.out_channels == 512


ONE = [weight("w", 4, 3, 3, 3)]


@pytest.mark.parametrize(
    ("nodes", "weights", "shape", "words"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], [], (1, 3, 8, 8), "no 2-D Conv in this model$"),
        ([helper.make_node("ConvTranspose", ["x", "w"], ["y"])], ONE, (1, 4, 8, 8),
         r"no 2-D Conv to measure in this model: 1 is transposed \(ConvTranspose\)$"),
        ([conv("x", "w", "y")], ONE, ("N", 3, "height", None), "Conv y has no fixed size, since input 'x' leaves open "
         r"dimension 2 \(height\), dimension 3 \(\?\); give sizes, for example: --size 1,3,224,224$"),
        ([conv("x", "w", "y")], ONE, None, "'x' leaves open its rank; .* --size 1,3,224,224$"),
        ([conv("x", "w", "y")], ONE, (1, 5, 8, 8), "Conv y: its input has 5 channels, its weight 3 for each"),
        ([conv("x", "w", "y")], ONE, (1, 3, 2, 2), "Conv y: Conv2dProblem: kernel_size: expected a kernel that fits"),
        ([conv("x", "w", "y")], ONE, (1, 3, 8), "Conv y: Conv2dProblem: in_size: expected"),
        ([conv("x", "w", "y")], ONE, (1, 3, 2**40, 2**40), "Conv y: Conv2dProblem: "),
        ([conv("x", "w", "y", strides=[0, 1])], ONE, (1, 3, 8, 8), "Conv y: Conv2dProblem: stride"),
        ([conv("x", "w", "y", auto_pad="SAME_UPPER", strides=[0, 1])], ONE, (1, 3, 8, 8), "Conv y: "),
        ([conv("x", "w", "y", pads=[1, 1])], ONE, (1, 3, 8, 8), "Conv y: pads: expected top, left, bottom, right, got"),
        ([conv("x", "w", "y", pads=[-1] * 4)], ONE, (1, 3, 8, 8), "Conv y: Conv2dProblem: padding"),
        ([conv("x", "w", "y", strides=1.5)], ONE, (1, 3, 8, 8), "Conv y: 'float' object is not iterable"),
        ([conv("x", "w", "y", group=0)], ONE, (1, 3, 8, 8), "Conv y: its input has 3 channels"),
        ([conv("x", "w", "y", auto_pad="BOTH")], ONE, (1, 3, 8, 8), "Conv y: auto_pad: expected NOTSET"),
        ([conv("x", "w", "y", auto_pad=3)], ONE, (1, 3, 8, 8), "Conv y: "),
        ([conv("x", "w", "y", kernel_shape=[5, 5])], ONE, (1, 3, 8, 8), "Conv y: kernel_shape is"),
        ([helper.make_node("Conv", [], ["y"])], ONE, (1, 3, 8, 8), "1 has no input or no weight$"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_measured_says_why(
    path: Path, nodes: list[Any], weights: list[Any], shape: Any, words: str
) -> None:
    save(path, nodes, weights, shape)
    with pytest.raises(WorkloadError, match=re.escape(f"{path}: ") + ".*" + words) as caught:
        workloads.load(str(path))
    assert "\n" not in str(caught.value)


def test_a_batch_that_does_not_scale_is_refused(path: Path) -> None:
    save(path, [conv("x", "w", "y")], ONE, (2, 3, 8, 8))
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("other", FLOAT, (3, 3, 8, 8)))
    onnx.save(model, path)
    with pytest.raises(WorkloadError, match="batch: this model has a fixed batch that 5 cannot replace"):
        workloads.load(str(path), batch=5)
    weights = [weight("w", 4, 3, 3, 3), weight("z", 1, 3, 8, 8)]
    save(path, [conv("x", "w", "a"), conv("z", "w", "y")], weights, (2, 3, 8, 8))
    with pytest.raises(WorkloadError, match="Conv y has batch 1 where the model has 2; that does not scale to 5"):
        workloads.load(str(path), batch=5)


@pytest.mark.parametrize("content", [b"", b"junk", b"\x00" * 999, b"\xff" * 999, b"# text\n", b"\x08\x07"])
def test_junk_is_no_model(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WorkloadError, match=r"net\.onnx: (cannot be read as an ONNX model: |no 2-D Conv)") as caught:
        workloads.load(str(path))
    assert "\n" not in str(caught.value)


def test_cut_and_damaged_files_give_layers_or_one_line(path: Path, effort: Effort) -> None:
    save(path, [conv("x", "w", "a", strides=[2, 2]), conv("a", "v", "y")], [*ONE, weight("v", 2, 4, 1, 1)])
    whole = path.read_bytes()
    rng = random.Random(effort.seed)
    damaged = [whole[: rng.randrange(len(whole))] for _ in range(effort.files)]
    for _ in range(effort.files):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        damaged.append(bytes(data))
    for content in damaged:
        path.write_bytes(content)
        try:
            lines = [layer.name for layer in workloads.load(str(path))]
        except WorkloadError as error:
            lines = [str(error)]
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ['a"b', "a\nb\x1b[31m", "é/层", "", " ", "x" * 10**5, "'; rm -rf /"])
def test_a_hostile_name_is_made_plain(path: Path, name: str) -> None:
    layer = only(save(path, [conv("x", "w", "y", name=name)], ONE))
    assert layer.name.isprintable()
    assert 0 < len(layer.name) <= 100
    assert not set(layer.name) & set("\"';,")
    assert layer.problem.from_label(layer.problem.label) == layer.problem


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(WorkloadError, match=r"folder\.onnx: expected a file of layers, got a folder"):
        workloads.load(str(tmp_path / "folder.onnx"))
    with pytest.raises(WorkloadError, match=r"no file '.*none\.onnx'"):
        workloads.load(str(tmp_path / "none.onnx"))


def test_without_the_package_the_error_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(path, [conv("x", "w", "y")], ONE)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WorkloadError, match="needs the package onnx: pip install onnx"):
        workloads.load(str(path))


@pytest.mark.parametrize("name", ["tune", "warmup"])
def test_the_commands_take_a_model(
    path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONV_IMPLS_CACHE_DIR", str(path.parent / "user"))
    save(path, [conv("x", "w", "y", name="/stem/Conv")], ONE)
    assert command.main([name, "--workload", str(path), "--threads", "1"]) == 0
    assert ("/stem/Conv" if name == "tune" else "1 layers are ready") in capsys.readouterr().out
    path.write_bytes(b"junk")
    with pytest.raises(SystemExit) as done:
        command.main([name, "--workload", str(path)])
    assert done.value.code == 2
    assert "net.onnx: cannot be read as an ONNX model" in capsys.readouterr().err
