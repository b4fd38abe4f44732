"""Layer stacks followed by hand: sizes, receptive fields, parameters, cost, warnings, and the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from conv_impls import Conv2dProblem, ProblemError, trace
from conv_impls.trace import GRAMMAR, Layer, LayerTrace, Trace

STACK = "conv 8 k3 s1 p1; conv 16 k3 s2 p1; conv 16 k3 s1 p1; conv 32 k3 s2 p1"


def last(input_size: tuple[int, int, int], text: str) -> LayerTrace:
    return trace(input_size, text).layers[-1]


def test_the_stack_of_the_lesson() -> None:
    layers = trace((1, 128, 128), STACK).layers
    assert [layer.output for layer in layers] == [(8, 128, 128), (16, 64, 64), (16, 64, 64), (32, 32, 32)]
    assert [layer.receptive_field for layer in layers] == [(3, 3), (5, 5), (9, 9), (13, 13)]
    assert [layer.effective_stride for layer in layers] == [(1, 1), (2, 2), (2, 2), (4, 4)]
    assert [layer.parameters for layer in layers] == [80, 1168, 2320, 4640]
    assert trace((1, 128, 128), STACK).parameters == 8208


@pytest.mark.parametrize(
    ("text", "output", "parameters"),
    [
        ("conv 64 k3 p1", (64, 32, 48), 1792),
        ("conv 64 k3 p1 nobias", (64, 32, 48), 1728),
        ("conv 6 k5 g3", (6, 28, 44), 156),
        ("conv 3 k3 p1 dw", (3, 32, 48), 30),
        ("conv 6 k3 p1 dw nobias", (6, 32, 48), 54),
        ("conv 8 k3 d2", (8, 28, 44), 224),
        ("conv 8 k5x3 d2x3 psame", (8, 32, 48), 368),
        ("conv 8 k4 psame", (8, 32, 48), 392),
        ("conv 8 k3x5 s2x3 p1x0", (8, 16, 15), 368),
        ("maxpool k2", (3, 16, 24), 0),
        ("avgpool k3 s2 p1", (3, 16, 24), 0),
        ("maxpool k2x4", (3, 16, 12), 0),
    ],
)
def test_one_layer_by_hand(text: str, output: tuple[int, int, int], parameters: int) -> None:
    layer = last((3, 32, 48), text)
    assert (layer.output, layer.parameters) == (output, parameters)


@pytest.mark.parametrize(
    ("text", "field", "stride"),
    [
        ("conv 4 k7", (7, 7), (1, 1)),
        ("conv 4 k3 d4", (9, 9), (1, 1)),
        ("conv 4 k3x5 s2x1 d1x2", (3, 9), (2, 1)),
        ("conv 4 k3 s2; conv 4 k3 s2; conv 4 k3 s2", (15, 15), (8, 8)),
        ("conv 4 k3; maxpool k2; conv 4 k3; avgpool k3x2", (12, 10), (6, 4)),
        ("conv 4 k1; conv 4 k1 s3; conv 4 k2", (4, 4), (3, 3)),
        ("conv 4 k3 s2x1; conv 4 k3 d2", (11, 7), (2, 1)),
    ],
)
def test_receptive_field_and_effective_stride_by_hand(
    text: str, field: tuple[int, int], stride: tuple[int, int]
) -> None:
    layer = last((3, 97, 97), text)
    assert (layer.receptive_field, layer.effective_stride) == (field, stride)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("conv 8 k3 p1", {"out_channels": 8, "kernel_size": 3, "padding": 1}),
        ("conv 8 k3x5 s2x3 p1x0", {"out_channels": 8, "kernel_size": (3, 5), "stride": (2, 3), "padding": (1, 0)}),
        ("conv 6 k3 d2 g2 nobias", {"out_channels": 6, "kernel_size": 3, "dilation": 2, "groups": 2}),
        ("conv 12 k4 psame dw", {"out_channels": 12, "kernel_size": 4, "padding": "same", "groups": 6}),
    ],
)
def test_sizes_and_macs_are_those_of_the_problem(text: str, problem: dict[str, Any]) -> None:
    layer = last((6, 19, 23), text)
    described = Conv2dProblem(1, 6, (19, 23), **problem)
    assert layer.macs == described.macs
    assert (1, *layer.output) == described.output_shape


def test_a_pool_multiplies_nothing() -> None:
    stack = trace((3, 8, 8), "maxpool k2; conv 4 k1; avgpool k2")
    assert [layer.macs for layer in stack.layers] == [0, 4 * 3 * 16, 0]
    assert (stack.macs, stack.parameters) == (192, 16)


def test_layers_may_be_objects() -> None:
    objects = [
        Layer("conv", (3, 3), 8, padding=((1, 1), (1, 1))),
        Layer("conv", (3, 3), 8, stride=(2, 2), depthwise=True, bias=False),
        Layer("maxpool", (2, 2), stride=(2, 2)),
    ]
    by_object = trace([3, 32, 32], objects)
    by_text = trace((3, 32, 32), "conv 8 k3 p1; conv 8 k3 s2 dw nobias; maxpool k2")
    assert [layer.layer for layer in by_text.layers] == objects
    for one, other in zip(by_object.layers, by_text.layers, strict=True):
        assert (one.output, one.parameters, one.macs) == (other.output, other.parameters, other.macs)
        assert (one.receptive_field, one.effective_stride) == (other.receptive_field, other.effective_stride)
    assert "conv 8 k3 s2" in str(by_object)


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        ("conv 4 k3 p1; maxpool k2x3", ()),
        ("conv 4 k2 s2", ("layer 1: width is not divisible: no window covers the last 1 ",)),
        ("conv 4 k3x1 s2x1", ("layer 1: height is not divisible: no window covers the last 1 rows",)),
        ("conv 4 k5x1 p2x0; conv 4 k5x1", ("layer 2: receptive field 9 is larger than the input height 8",)),
        ("conv 4 k1x5 d1x2 p0x4; conv 4 k1x2", ("layer 2: receptive field 10 is larger than the input width 9",)),
        (
            "conv 4 k9x1",
            (
                "layer 1: height falls to zero: window of 9 on 8 + padding 0",
                "layer 1: receptive field 9 is larger than the input height 8",
            ),
        ),
    ],
)
def test_a_stack_that_goes_wrong_is_warned_of(text: str, warnings: tuple[str, ...]) -> None:
    """The input is 8 rows by 9 columns."""
    stack = trace((3, 8, 9), text)
    assert len(stack.warnings) == len(warnings)
    for got, expected in zip(stack.warnings, warnings, strict=True):
        assert got.startswith(expected)
        assert f"warning: {got}" in str(stack).splitlines()


def test_a_warning_about_the_width_speaks_of_columns() -> None:
    assert trace((3, 8, 9), "conv 4 k2 s2").warnings == (
        "layer 1: width is not divisible: no window covers the last 1 columns",
    )


def test_a_receptive_field_beyond_the_input_is_warned_of_once() -> None:
    stack = trace((1, 8, 8), "conv 1 k9 p4; conv 1 k3 p1; conv 1 k3 p1")
    assert [text.split(":")[0] for text in stack.warnings] == ["layer 1", "layer 1"]


def test_a_stack_is_followed_no_further_than_where_its_size_falls_to_zero() -> None:
    stack = trace((1, 6, 6), "conv 2 k3; conv 2 k5; conv 2 k1")
    assert [layer.output for layer in stack.layers] == [(2, 4, 4), (2, 0, 0)]
    assert stack.layers[-1].macs == 0
    assert sum("falls to zero" in text for text in stack.warnings) == 2


def test_the_table_shows_input_layers_and_totals() -> None:
    lines = str(trace((3, 32, 32), "conv 64 k3 p1; maxpool k2x1")).splitlines()
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [
        ["layer", "output", "receptive field", "stride", "parameters", "MACs"],
        ["input", "3x32x32", "1", "1", "0", "0"],
        ["1", "conv 64 k3 p1", "64x32x32", "3", "1", "1,792", "1,769,472"],
        ["2", "maxpool k2x1", "64x16x32", "4x3", "2x1", "0", "0"],
        ["total", "1,792", "1,769,472"],
    ]


def test_the_table_is_what_a_prompt_shows() -> None:
    stack = trace((3, 32, 32), "conv 64 k3 p1; maxpool k2x1")
    assert repr(stack) == str(stack)
    assert repr(stack).startswith("   layer          output    receptive field")


def test_a_notebook_shows_the_cells_of_the_table() -> None:
    stack = trace((3, 4, 4), "conv 64 k3 p1; maxpool k3")
    table = ElementTree.fromstring(f"<div>{stack._repr_html_()}</div>")
    assert [[cell.text or "" for cell in row] for row in table.iter("tr")] == [
        ["", "layer", "output", "receptive field", "stride", "parameters", "MACs"],
        ["", "input", "3x4x4", "1", "1", "0", "0"],
        ["1", "conv 64 k3 p1", "64x4x4", "3", "1", "1,792", "27,648"],
        ["2", "maxpool k3", "64x1x1", "5", "3", "0", "0"],
        ["", "total", "", "", "", "1,792", "27,648"],
    ]
    assert [note.text for note in table.iter("p")] == [f"warning: {text}" for text in stack.warnings] != []


def test_text_in_a_notebook_is_no_markup() -> None:
    layer = replace(trace((3, 4, 4), "conv 8 k3").layers[0], text="<b>&", warnings=("<i>",))
    shown = Trace((3, 4, 4), (layer,))._repr_html_()
    assert "&lt;b&gt;&amp;" in shown
    assert "&lt;i&gt;" in shown
    assert "<b>" not in shown
    assert "<i>" not in shown


WRONG: dict[str, str] = {
    "": f"layers: expected {GRAMMAR}, got ''",
    " ; ": f"layers: expected {GRAMMAR}, got ' ; '",
    "pool k2": f"layers: expected {GRAMMAR}, got 'pool k2' (unknown layer 'pool')",
    "conv k3": f"layers: expected {GRAMMAR}, got 'conv k3' (a conv starts with its output channels)",
    "conv": f"layers: expected {GRAMMAR}, got 'conv' (a conv starts with its output channels)",
    "conv 0 k3": f"layers: expected {GRAMMAR}, got 'conv 0 k3' (a conv starts with its output channels)",
    "conv ² k3": f"layers: expected {GRAMMAR}, got 'conv ² k3' (a conv starts with its output channels)",
    "conv 8": f"layers: expected {GRAMMAR}, got 'conv 8' (no kernel size)",
    "maxpool s2": f"layers: expected {GRAMMAR}, got 'maxpool s2' (no kernel size)",
    "conv 8 k3 z1": f"layers: expected {GRAMMAR}, got 'z1' (in 'conv 8 k3 z1')",
    "conv 8 k3 x3": f"layers: expected {GRAMMAR}, got 'x3' (in 'conv 8 k3 x3')",
    "conv 8 k3x": f"layers: expected {GRAMMAR}, got 'k3x' (in 'conv 8 k3x')",
    "conv 8 k3 s-1": f"layers: expected {GRAMMAR}, got 's-1' (in 'conv 8 k3 s-1')",
    "maxpool k2 d2": f"layers: expected {GRAMMAR}, got 'd2' (in 'maxpool k2 d2')",
    "avgpool k2 g2": f"layers: expected {GRAMMAR}, got 'g2' (in 'avgpool k2 g2')",
    "maxpool k2 nobias": f"layers: expected {GRAMMAR}, got 'nobias' (in 'maxpool k2 nobias')",
    "conv 8 k0": "k: expected an integer >= 1, got 0",
    "conv 8 k3 s0": "s: expected an integer >= 1, got 0",
    "conv 8 k3 d1x0": "d: expected an integer >= 1, got 0",
    "conv 8 k3 g0": "groups: expected an integer >= 1, got 0",
    "conv 8 k3 g2": "groups: expected a divisor of the 3 input channels, got 2",
    "conv 8 k3 dw": "groups: expected a divisor of the 8 output channels, got 3",
    "conv 8 k3 psame s2": "padding: expected 'same' only with stride 1, got 'same' (stride=(2, 2)",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=[repr(text) for text in WRONG])
def test_a_layer_that_does_not_parse_is_quoted(text: str, message: str) -> None:
    with pytest.raises(ProblemError, match="^" + re.escape(f"trace: {message}")):
        trace((3, 32, 32), text)


@pytest.mark.parametrize(("size", "got"), [((3, 8), "(3, 8)"), ((3, 0, 8), "(3, 0, 8)"), ((3, -8, 8), "-8")])
def test_a_wrong_input_size_is_quoted(size: tuple[int, ...], got: str) -> None:
    with pytest.raises(ProblemError, match=r"^trace: input_size: expected .*, got " + re.escape(got)):
        trace(size, "conv 8 k3")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "conv", "out_channels": 8, "groups": 2}, "trace: groups: expected a divisor of the 3 input channels"),
        ({"kind": "conv", "out_channels": 8, "groups": 0}, "Layer: groups: expected an integer >= 1, got 0"),
        ({"kind": "conv", "out_channels": 8, "stride": (0, 1)}, "Layer: stride: expected an integer >= 1, got 0"),
        ({"kind": "conv"}, "Layer: out_channels: expected an integer >= 1, got 0"),
        ({"kind": "pool"}, "Layer: kind: expected one of 'conv', 'maxpool', 'avgpool', got 'pool'"),
    ],
    ids=["groups do not divide", "no groups", "stride of 0", "no output", "unknown kind"],
)
def test_a_layer_object_that_makes_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ProblemError, match="^" + re.escape(words)):
        trace((3, 32, 32), [Layer(kernel_size=(3, 3), **fields)])


@pytest.mark.parametrize("word", ["k3 k5", "k3 psame p1", "k3 dw g2", "k3 g3x2", "k3 x3", "k3 pvalid"])
def test_what_is_said_twice_or_in_two_ways_is_refused(word: str) -> None:
    with pytest.raises(ProblemError, match=r"^trace: layers: expected conv OUT kK"):
        trace((3, 32, 32), f"conv 8 {word}")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "conv_impls", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_line_prints_the_table() -> None:
    done = run("trace", "1x128x128", STACK)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{trace((1, 128, 128), STACK)}\n"
    assert ["total", "8,208", "20,054,016"] in [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["3x32", "conv 8 k3"], "argument input: expected CxHxW such as 3x224x224, got '3x32'"),
        (["3x-1x32", "conv 8 k3"], "argument input: expected CxHxW such as 3x224x224, got '3x-1x32'"),
        (["3x0x32", "conv 8 k3"], "trace: input_size: expected (C, H, W), each >= 1, got (3, 0, 32)"),
        (["3x32x32", "conv 8"], f"trace: layers: expected {GRAMMAR}, got 'conv 8' (no kernel size)"),
        (["3x32x32", "conv ² k3"], f"trace: layers: expected {GRAMMAR}, got 'conv ² k3' (a conv starts"),
        (["3x32x32"], "the following arguments are required: layers"),
    ],
)
def test_a_wrong_command_line_ends_in_one_line_and_exit_2(arguments: list[str], message: str) -> None:
    done = run("trace", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    usage, text = done.stderr.split("python -m conv_impls trace: error: ")
    assert usage.startswith("usage: python -m conv_impls trace ")
    assert text.startswith(message)
    assert text.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["trace", "--help"]])
def test_help_has_examples(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert 'python -m conv_impls trace 3x224x224 "conv 32 k3 s2 p1' in done.stdout
    assert GRAMMAR in done.stdout


def test_no_command_is_a_usage_error() -> None:
    done = run()
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
