"""Workloads as data: the built-in ones are whole, a malformed line is named with its file and number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conv_impls import workloads
from conv_impls.workloads import COLUMNS, WorkloadError

HEAD = ",".join(COLUMNS)
ROW = "a,1,1,3,8,8,4,8,8,3,3,1,1,1,1,1,1,1,1,1"


@pytest.mark.parametrize(
    ("name", "layers", "counted", "gmacs"),
    [
        ("basic", 18, 18, None), ("resnet50", 23, 53, 4.089), ("vgg16", 9, 13, 15.347), ("mobilenet_v2", 30, 52, 0.299),
        ("convnext_tiny", 16, 58, 4.455),
    ],
)  # fmt: skip
def test_built_in_workloads_have_all_their_layers(name: str, layers: int, counted: int, gmacs: float | None) -> None:
    loaded = workloads.load(name)
    assert (len(loaded), sum(layer.count for layer in loaded)) == (layers, counted)
    if gmacs is not None:
        # Published multiply-adds of the convolutions of each network at 224 pixels.
        assert sum(layer.count * layer.problem.macs for layer in loaded) / 1e9 == pytest.approx(gmacs, abs=2e-3)


def test_the_four_networks_have_78_rows() -> None:
    assert sum(len(workloads.load(n)) for n in ("resnet50", "vgg16", "mobilenet_v2", "convnext_tiny")) == 78


def test_basic_covers_six_kinds_in_three_variants() -> None:
    names = {layer.name for layer in workloads.load("basic")}
    kinds = ("first", "1x1", "3x3", "padding_over_kernel", "grouped", "depthwise")
    assert names == {kind + variant for kind in kinds for variant in ("", "_tail", "_stride_tail")}
    problems = {layer.name: layer.problem for layer in workloads.load("basic")}
    assert all(problems[f"{kind}_stride_tail"].stride != (1, 1) for kind in kinds)
    assert max(problems["padding_over_kernel"].padding[0]) >= problems["padding_over_kernel"].kernel_size[0]
    assert problems["depthwise"].groups == problems["depthwise"].in_channels


def test_sizes_steps_through_images_kernels_and_channels() -> None:
    problems = [layer.problem for layer in workloads.load("sizes")]
    assert {p.in_size[0] for p in problems} >= {16, 32, 64, 128, 256, 512}
    assert {p.kernel_size[0] for p in problems} == {1, 3, 5, 7, 11}
    assert len({p.in_channels for p in problems}) >= 4
    wide = {p.in_size[0] for p in problems if p.in_channels == p.out_channels == 64 and p.kernel_size == (3, 3)}
    assert wide == {16, 32, 64, 128, 256}


def test_kernel_sizes_grow_in_three_series() -> None:
    problems = [layer.problem for layer in workloads.load("kernel_sizes")]
    series = {(p.in_channels, p.groups, p.in_size) for p in problems}
    assert series == {(4, 1, (128, 128)), (64, 1, (56, 56)), (64, 64, (112, 112))}
    assert [p.kernel_size[0] for p in problems] == 3 * [1, 3, 5, 7, 9, 11, 15, 21, 31]
    assert all(p.out_size == p.in_size for p in problems)


def test_batch_and_dtype_replace_those_of_every_layer(tmp_path: Path) -> None:
    for name in ("basic", "resnet50"):
        layers = workloads.load(name, batch=7, dtype="float64")
        assert {(layer.problem.batch, layer.problem.dtype) for layer in layers} == {(7, "float64")}
        assert [layer.name for layer in layers] == [layer.name for layer in workloads.load(name)]
    path = tmp_path / "mine.txt"
    path.write_text("mb3ic3ih8oc4kh3ph1\n")
    assert workloads.load(str(path), batch=7)[0].name == "mb7ic3ih8oc4oh8kh3ph1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "batch: expected an integer >= 1"),
        ({"batch": 2**40}, r"batch: expected an integer >= 1 and below 2\*\*31"),
        ({"batch": 2**30}, "resnet50: Conv2dProblem: "),
        ({"dtype": "float16"}, "resnet50: Conv2dProblem: dtype: expected one of 'float32', 'float64'"),
    ],
)
def test_a_batch_or_dtype_that_cannot_be_is_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkloadError, match=words):
        workloads.load("resnet50", **options)


def test_a_file_of_labels_takes_comments_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text('# mine\n\nic3ih8oc4kh3ph1n"a" x7  # seven of them\nic3ih8oc4kh1\n')
    first, second = workloads.load(str(path))
    assert (first.workload, first.name, first.count) == ("mine", "a", 7)
    assert second.name == second.problem.label


def test_one_label_is_a_workload() -> None:
    (layer,) = workloads.load('mb1ic3ih8oc4kh3ph1n"only"')
    assert (layer.workload, layer.name) == ("label", "only")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "ic3ih8oc4kh3\nnonsense\n", r"a\.txt:2: from_label: text: expected"),
        ("a.txt", "ic3ih8oc4kh9\n", r"a\.txt:1: Conv2dProblem: kernel_size: expected a kernel that fits"),
        ("a.txt", 'ic3ih8oc4kh3n"x"\nic3ih8oc4kh1n"x"\n', r"a\.txt: layer name 'x' is used twice"),
        ("a.txt", "# nothing\n", r"a\.txt: it contains no layers"),
        ("a.csv", "x,y\n1,2\n", r"a\.csv:1: expected the columns name,count,"),
        ("a.csv", f"{HEAD}\n{ROW.replace('3,8', 'x,8')}\n", r"a\.csv:2: invalid literal"),
        ("a.csv", f"{HEAD}\n{ROW.replace('4,8,8', '4,9,8')}\n", r"a\.csv:2: oh x ow is 9x8"),
        ("a.csv", f"{HEAD}\n{ROW[:-2]}\n", r"a\.csv:2: expected 20 values, got another number"),
        ("a.csv", f"{HEAD}\n{ROW},1\n", r"a\.csv:2: expected 20 values, got another number"),
        ("a.csv", f"{HEAD}\n{ROW.replace('a,1', 'a,0')}\n", r"a\.csv:2: expected a count from 1"),
        ("a.csv", f"{HEAD}\n{ROW}\n{'9' * 200_000}\n", r"a\.csv:3: field larger than field limit"),
        ("a.csv", f"{HEAD}\n{ROW.replace('a,1', 'a,' + '9' * 5000)}\n", r"a\.csv:2: Exceeds the limit"),
        ("a.csv", "", r"a\.csv:1: expected the columns"),
        ("a.txt", "ic3ih8oc4kh3 x0\n", r"a\.txt:1: expected a count from 1"),
        ("a.txt", f"ic3ih8oc4kh3 x{'9' * 5000}\n", r"a\.txt:1: from_label"),
        ("a.txt", f"ic{'9' * 5000}ih8oc4kh3\n", r"a\.txt:1: from_label"),
        ("a.csv", HEAD + "\n", r"a\.csv: it contains no layers"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WorkloadError, match=words):
        workloads.load(str(tmp_path / name))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WorkloadError, match="cannot be read as text"):
        workloads.load(str(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no workload"), (".", "folder"), ("none.txt", "no file 'none.txt'"), ("folder/none", "no file"),
        ("\0", "no workload"), ("x" * 9999, "no workload"), ("ic3" + "x" * 9999, "from_label: text"),
    ],
)  # fmt: skip
def test_what_is_no_workload_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkloadError, match=words):
        workloads.load(text)


def test_an_unknown_name_suggests_and_lists() -> None:
    with pytest.raises(
        WorkloadError, match=r"no workload 'resnet5'; did you mean 'resnet50'.*known: alexnet, basic, convnext_tiny"
    ):
        workloads.load("resnet5")
