"""Conv2dProblem: sizes by hand, labels, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from conv_impls import Conv2dProblem, DTypeError, ProblemError


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "out"),
    [
        (224, 7, 2, (3, 3), 1, 112), (224, 3, 2, (0, 1), 1, 112), (5, 3, 1, (1, 1), 1, 5), (5, 3, 2, (1, 1), 2, 2),
        (8, 1, 3, (0, 0), 1, 3), (7, 3, 1, (2, 2), 2, 7), (4, 4, 4, (0, 0), 1, 1),
    ],
)  # fmt: skip
def test_output_size_by_hand(
    size: int, kernel: int, stride: int, padding: tuple[int, int], dilation: int, out: int
) -> None:
    p = Conv2dProblem(1, 1, (size, size), 1, (kernel,) * 2, (stride,) * 2, (padding,) * 2, (dilation,) * 2)
    assert p.output_shape == (1, 1, out, out)


def test_counts_by_hand() -> None:
    p = Conv2dProblem(2, 6, (5, 5), 4, (3, 3), padding=((1, 1), (1, 1)), groups=2)
    assert p.weight_shape == (4, 3, 3, 3)
    assert (p.reduction, p.macs, p.flops) == (27, 2 * 4 * 25 * 27, 2 * 2 * 4 * 25 * 27)
    assert p.min_bytes == 4 * (2 * 6 * 25 + 4 * 27 + 2 * 4 * 25)
    assert p.replace(dtype="float64").min_bytes == 2 * p.min_bytes


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        (
            'g32mb1ic128ih56oc128oh56kh3ph1n"name"',
            {"groups": 32, "batch": 1, "name": "name", "padding": ((1, 1), (1, 1))},
        ),
        ("ic3oc16_ih5oh5kh3ph1", {"batch": 2, "in_size": (5, 5), "out_channels": 16}),
        ("mb1ic3ih224oc64oh112kh7sh2ph3", {"padding": ((3, 2), (3, 2)), "stride": (2, 2)}),
        (
            "mb1ic1ih9iw11oc1oh7ow5kh3kw5sh1sw2ph0pw1",
            {"in_size": (9, 11), "stride": (1, 2), "padding": ((0, 0), (1, 1))},
        ),
        ("mb1ic1ih9oc1oh5kh3dh1ph0", {"dilation": (2, 2)}),
        ("mb1ic1ih9oc1oh9kh3", {"padding": ((1, 1), (1, 1))}),
        ("mb1ic1ih9oc1kh3ph1", {"padding": ((1, 1), (1, 1))}),
        ('mb1ic1ih9oc1oh9kh3ph1pm"reflect"dt"float64"', {"padding_mode": "reflect", "dtype": "float64"}),
    ],
)
def test_labels_read_as_benchdnn_reads_them(label: str, fields: dict[str, object]) -> None:
    problem = Conv2dProblem.from_label(label)
    assert {name: getattr(problem, name) for name in fields} == fields
    assert Conv2dProblem.from_label(problem.label) == problem


def test_label_of_plain_and_of_uneven_problems() -> None:
    plain = Conv2dProblem(1, 64, (56, 56), 64, (3, 3), padding=((1, 1), (1, 1)), name="a b")
    assert plain.label == 'mb1ic64ih56oc64oh56kh3ph1n"a b"'
    uneven = Conv2dProblem(1, 4, (9, 8), 4, (3, 1), (2, 1), ((1, 0), (0, 0)), (2, 1), 4)
    assert uneven.label == "g4mb1ic4ih9iw8oc4oh3ow8kh3kw1sh2sw1ph1pw0dh1dw0"


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("", "from_label: ic: expected a value, got none"),
        ("mb1ic3ih5oc2", "from_label: kh: expected a value, got none"),
        ("mb1ic3ih5oc2kh3zz9", "from_label: text: expected a benchdnn label .* got 'zz9'"),
        ("ic3ic4ih5oc2kh3", "from_label: ic: expected one value, got two"),
        ("ic3ih5oc2oh6kh3ph0", "from_label: oh: expected the output size of the other values, got 6"),
        ("ic3ih5oc2oh2kh3ph1", "from_label: oh: expected the output size of the other values, got 2"),
        ("ic3ih5oc2oh5kh3ph1sh0", "from_label: sh: expected an integer >= 1, got 0"),
        ("g2ic3ih5oc2oh5kh3ph1", "Conv2dProblem: groups: expected a divisor of the 3 input channels, got 2"),
        ('ic3ih5oc2oh5kh3ph1dt"int8"', "Conv2dProblem: dtype: expected one of 'float32', 'float64', got 'int8'"),
    ],
)
def test_labels_that_make_no_sense(label: str, words: str) -> None:
    if label == "ic3ih5oc2oh6kh3ph0":
        # Not wrong: the padding below makes up for it.
        assert Conv2dProblem.from_label(label).padding == ((0, 3), (0, 3))
        return
    with pytest.raises(ProblemError, match=words):
        Conv2dProblem.from_label(label)


def test_from_arrays_describes_the_call() -> None:
    x, w = np.ones((2, 4, 9, 9), "f4"), np.ones((6, 2, 3, 3), "f4")
    p = Conv2dProblem.from_arrays(x, w, stride=(2, 1), padding=((1, 2), (0, 3)), groups=2, padding_mode="replicate")
    assert p == Conv2dProblem(2, 4, (9, 9), 6, (3, 3), (2, 1), ((1, 2), (0, 3)), (1, 1), 2, "replicate")


def test_same_puts_an_odd_total_at_the_bottom_and_right() -> None:
    p = Conv2dProblem.from_arrays(np.ones((1, 5, 5)), np.ones((1, 1, 2, 4)), padding="same")
    assert p.padding == ((0, 1), (1, 2))
    assert p.out_size == (5, 5)


def test_a_problem_is_frozen_hashable_and_ignores_its_name() -> None:
    p = Conv2dProblem.from_label('ic3ih5oc2kh3n"a"')
    assert len({p, p.replace(name="b"), p.replace(batch=3)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.batch = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"stride": (0, 1)}, ProblemError, "stride: expected an integer >= 1, got 0"),
        ({"groups": True}, DTypeError, "groups: expected an integer >= 1, got True"),
        ({"in_size": (1, 1)}, ProblemError, "kernel_size: expected a kernel that fits the padded input along H"),
        ({"name": 'a"b'}, ProblemError, "name: expected printable text"),
        ({"batch": 2**60}, ProblemError, "expected an array of at most"),
        ({"padding": "same", "stride": (2, 2)}, ProblemError, "'same' only with stride 1"),
    ],
)
def test_a_wrong_field_is_refused(changes: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Conv2dProblem.from_label("mb1ic3ih5oc2kh3").replace(**changes)
