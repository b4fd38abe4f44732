"""Why convolutions of a model are left out: the reason is the true one, and nothing grows without end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import conv, integers, only, save, value, weight

from conv_impls import workloads
from conv_impls.workloads import Workload, WorkloadError, coverage

ONE = [weight("w", 4, 3, 3, 3)]
FOUR = [*ONE, weight("w4", 4, 4, 3, 3)]
RUN_TIME = "have sizes known only at run time"


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


BATCH_NORM = [node("BatchNormalization", "a s s s s", "b"), conv("b", "w4", "c")]
BRANCH = helper.make_graph([conv("x", "w", "t")], "branch", [], [value("t", 1, 4, 99, 99)])
RESIZED = [node("Resize", "a  n", "b"), conv("b", "w4", "c")]
RESIZED[0].input[:] = ["a", "", "", "n"]


@pytest.mark.parametrize(("nodes", "opset", "reason"), [
    (BATCH_NORM, 1, "have sizes that ONNX does not infer through BatchNormalization of opset 1"),
    (BATCH_NORM, 9, None),
    ([node("Relu", "a", "b"), conv("b", "w4", "c")], 5, "have sizes that ONNX does not infer through Relu of opset 5"),
    ([node("GroupNormalization", "a s s", "b", num_groups=4), conv("b", "w4", "c")], 21, None),
    ([node("MeanVarianceNormalization", "a", "b"), conv("b", "w4", "c")], 13, None),
    ([node("Twice", "a", "b", domain="mine"), conv("b", "w4", "c")], 17,
     "have sizes that ONNX does not infer through mine.Twice"),
    ([node("Twice", "a", "b"), node("Relu", "b", "d"), conv("d", "w4", "c")], 17,
     "have sizes that ONNX does not infer through Twice of opset 17"),
    ([conv("a", "scalar", "c")], 17, "have a weight of 0 dimensions, not four"),
    ([conv("a", "s", "c")], 17, "have a weight of 1 dimensions, not four"),
    ([conv("a", "line", "c")], 17, "are 1-D"), ([conv("a", "cube", "c")], 17, "are 3-D"),
    ([conv("a", "nowhere", "c")], 17, "have an input nowhere that no node of the model makes"),
    ([node("Relu", "nowhere", "b"), conv("b", "w4", "c")], 17, "have an input nowhere that no node of the model makes"),
    ([node("ConvTranspose", "a w4", "c")], 17, "are transposed (ConvTranspose)"),
    ([node("ConvInteger", "a w4", "c")], 17, "are quantized (ConvInteger)"),
    ([node("QLinearConv", "a s s w4 s s s s", "c")], 17, "are quantized (QLinearConv)"),
    ([node("DeformConv", "a w4 a", "c")], 19, "are deformable (DeformConv)"),
    ([node("FusedConv", "a w4", "c", domain="com.microsoft")], 17,
     "are com.microsoft.FusedConv, which is not an operator of ONNX"),
    ([node("Convert", "a", "c"), node("ConvexHull", "a", "d", domain="mine")], 17, None),
    ([node("If", "yes", "c", then_branch=BRANCH, else_branch=BRANCH)], 17, "are inside If"),
    ([node("NonZero", "a", "n"), *RESIZED], 17, RUN_TIME),
    ([node("RandomNormal", "", "f", shape=[4]), node("Cast", "f", "n", to=7), *RESIZED], 17, RUN_TIME),
    ([node("Slice", "a none none", "b"), conv("b", "w4", "c")], 17, "have an empty input"),
])  # fmt: skip
def test_the_reason_is_the_true_one(path: Path, nodes: list[Any], opset: int, reason: str | None) -> None:
    tensors = [
        *FOUR, weight("s", 4), weight("line", 4, 4, 3), weight("cube", 4, 4, 3, 3, 3), integers("none", 0),
        numpy_helper.from_array(np.float32(1), "scalar"), numpy_helper.from_array(np.array(True), "yes"),
    ]  # fmt: skip
    save(path, [conv("x", "w", "a"), *nodes], tensors, (1, 3, 16, 16), opset=opset)
    model = onnx.load(path)
    model.opset_import.add(domain="com.microsoft", version=1)
    onnx.save(model, path)
    left_out = workloads.read(str(path)).left_out
    assert left_out == ({} if reason is None else {reason: 2 if "If" in reason else 1})


def test_sizes_that_do_not_fit_together_are_no_matter_of_run_time(path: Path) -> None:
    nodes = [conv("x", "w", "a"), node("Concat", "a x", "b", axis=1, name="join"), conv("b", "w", "y")]
    save(path, nodes, ONE, (1, 3, 16, 16))
    (reason,) = workloads.read(str(path)).left_out
    assert reason.startswith("have sizes that Concat join refuses (")
    assert "dimension have values but they differ. Inferred=1" in reason


def test_a_sparse_weight_is_a_weight(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    numbers = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    places = helper.make_tensor("places", TensorProto.INT64, [2], [0, 5])
    save(path, [conv("x", "w", "y")], [], (1, 3, 8, 8))
    model = onnx.load(path)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(numbers, places, [4, 3, 3, 3]))
    onnx.save(model, path)
    assert only(str(path)).problem.weight_shape == (4, 3, 3, 3)
    assert "1 Conv have a sparse weight and are measured as dense" in caplog.text


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("constant", [True, False])
def test_sizes_in_a_file_beside_the_model(path: Path, there: bool, constant: bool) -> None:
    """The shapes of a model whose tensors are all outside are outside, too."""
    shape = numpy_helper.from_array(np.array([1, 3], np.int32), "n3")
    nodes = [node("Cast", "n3", "n4", to=7), node("Concat", "n4 hw", "to", axis=0), node("Reshape", "x to", "r"),
             conv("r", "w", "y")]  # fmt: skip
    tensors = [*ONE, integers("hw", 8, 32), *([] if constant else [shape])]
    save(
        path,
        [*([helper.make_node("Constant", [], ["n3"], value=shape)] if constant else []), *nodes],
        tensors,
        (1, 3, 16, 16),
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="sizes.bin", size_threshold=0,
              convert_attribute=True)  # fmt: skip
    if there:
        assert only(str(path)).problem.in_size == (8, 32)
        return
    (path.parent / "sizes.bin").unlink()
    with pytest.raises(WorkloadError, match=r"1 has sizes that depend on the missing file sizes\.bin$"):
        workloads.load(str(path))


@pytest.mark.parametrize(("place", "words"), [
    ("../sizes.bin", "the unreadable file ../sizes.bin"), ("folder", "the missing file folder"),
    ("short.bin", "the unreadable file short.bin"),
])  # fmt: skip
def test_a_file_that_leads_elsewhere_or_is_too_short_is_not_read(path: Path, place: str, words: str) -> None:
    (path.parent / "folder").mkdir()
    path = path.parent / "folder" / "net.onnx"
    (path.parent / "folder").mkdir()
    (path.parent.parent / "sizes.bin").write_bytes(np.array([1, 3, 8, 32]).tobytes())
    (path.parent / "short.bin").write_bytes(b"1234")
    shape = TensorProto(name="to", dims=[4], data_type=TensorProto.INT64, data_location=TensorProto.EXTERNAL)
    shape.external_data.add(key="location", value=place)
    shape.external_data.add(key="length", value="32")
    save(path, [node("Reshape", "x to", "r"), conv("r", "w", "y")], [*ONE, shape], (1, 3, 16, 16))
    with pytest.raises(WorkloadError, match=f"1 has sizes that depend on {words}$"):
        workloads.load(str(path))


def test_a_damaged_tensor_is_named(path: Path) -> None:
    shape = TensorProto(name="to", dims=[4], data_type=TensorProto.INT64, raw_data=b"12345")
    nodes = [node("Reshape", "x to", "r"), conv("r", "w", "y"), conv("x", "w", "z")]
    save(path, nodes, [*ONE, shape], (1, 3, 16, 16))
    assert workloads.read(str(path)).left_out == {"have sizes that depend on the damaged tensor to": 1}


def test_sizes_below_0_do_not_end_the_process(path: Path) -> None:
    """ONNX infers a size of -6 for this pool, and aborts where a Slice takes it."""
    pool = node("MaxPool", "x", "p", kernel_shape=[16, 16])
    nodes = [pool, node("Slice", "p none s axis", "b"), conv("b", "w", "y"), conv("x", "w", "z")]
    save(path, nodes, [*ONE, integers("none", 0), integers("s", 4), integers("axis", 2)], (1, 3, 9, 9))
    assert workloads.read(str(path)).left_out == {"have sizes that MaxPool p refuses (a size below 0)": 1}


def functions(calls: Sequence[Sequence[str]]) -> list[Any]:
    """F0, F1, ...: each calls these operators one after the other."""
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    made = []
    for number, names in enumerate(calls):
        nodes = [
            helper.make_node(name, [f"v{i}"], [f"v{i + 1}"], domain="mine" if name[1:].isdecimal() else "")
            for i, name in enumerate(names)
        ]
        made.append(helper.make_function("mine", f"F{number}", ["v0"], [f"v{len(names)}"], nodes, imports))
    return made


@pytest.mark.parametrize(("calls", "words"), [
    ([*([f"F{i + 1}"] * 2 for i in range(40)), ["Relu"]], "its functions expand to more than 100000 nodes"),
    ([*([f"F{i + 1}"] * 400 for i in range(3)), ["Relu"]], "its functions expand to more than 100000 nodes"),
    ([["F0"]], "its function mine.F0 calls itself"),
    ([["Relu", "F1"], ["F2"], ["F0"]], "its function mine.F0 calls itself"),
    ([*([f"F{i + 1}"] for i in range(2000)), ["Relu"]], "is more than 100 calls deep"),
    ([*([f"F{i + 1}"] * 2 for i in range(10)), ["Relu"]], None),
])  # fmt: skip
def test_functions_that_grow_without_end_meet_a_limit(
    path: Path, calls: Sequence[Sequence[str]], words: str | None
) -> None:
    nodes = [helper.make_node("F0", ["x"], ["t"], domain="mine"), conv("t", "w", "y")]
    save(path, nodes, ONE, (1, 3, 8, 8), functions=functions(calls))
    if words is None:
        assert only(str(path)).problem.in_size == (8, 8)
    else:
        with pytest.raises(WorkloadError, match=words):
            workloads.load(str(path))


def test_a_function_that_grows_inside_a_branch_meets_the_limit_too(path: Path) -> None:
    grow = functions([*([f"F{i + 1}"] * 2 for i in range(40)), ["Relu"]])
    inner = helper.make_graph([helper.make_node("F0", ["x"], ["t"], domain="mine")], "b", [], [value("t")])
    nodes = [node("If", "yes", "i", then_branch=inner, else_branch=inner), conv("x", "w", "y")]
    save(path, nodes, [*ONE, numpy_helper.from_array(np.array(True), "yes")], (1, 3, 8, 8), functions=grow)
    with pytest.raises(WorkloadError, match="its functions expand to more than 100000 nodes"):
        workloads.load(str(path))


def test_a_function_that_cannot_be_opened_is_told_like_a_branch(path: Path) -> None:
    block = helper.make_function(
        "mine", "Block", ["a", "b"], ["c"], [conv("a", "b", "c")], [helper.make_opsetid("", 99)]
    )
    nodes = [conv("x", "w", "y"), helper.make_node("Block", ["x", "w"], ["z"], domain="mine")]
    save(path, nodes, ONE, (1, 3, 8, 8), functions=[block])
    assert workloads.read(str(path)).left_out == {"are inside mine.Block": 1}


def test_how_much_is_left_out_is_said_in_words() -> None:
    assert coverage(35, {RUN_TIME: 3}) == "35 of 38 convolutions; 3 have sizes known only at run time"
    assert (
        coverage(2, {RUN_TIME: 1, "are 1-D": 1}) == "2 of 4 convolutions; 1 has sizes known only at run time, 1 is 1-D"
    )
    assert Workload("w", []).coverage == "0 of 0 convolutions"
