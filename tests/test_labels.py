"""Labels are read exactly as oneDNN's benchdnn reads them, refused by name where they are not, and written for both."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import pytest

from conv_impls import Conv2dProblem, ConvError, ProblemError, workloads
from conv_impls.workloads import WorkloadError

H = "mb1ic2oc3ih9kh3"


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        # One w value, and nothing is copied from h: what is not given has its default, or follows.
        ("mb2ic16ih109iw13oc80oh55ow13kh1kw1sh2", {"stride": (2, 1), "padding": ((0, 0), (0, 0))}),
        ("mb1_ic1oc1_ih1kh1ph1_iw1kw1_n", {"out_size": (3, 1), "padding": ((1, 1), (0, 0))}),
        ("mb1_g16ic16oc16_ih15oh7kh6sh2ph3_iw10ow10kw3", {"stride": (2, 1), "padding": ((3, 0), (1, 1))}),
        ("mb17ic208ih6iw34oc59oh3ow32kh3kw3dh1ph1", {"dilation": (2, 1), "padding": ((1, 0), (0, 0))}),
        ("mb1ic16ih1iw1oc16oh2ow1kh3kw1dh1ph1", {"dilation": (2, 1), "out_size": (2, 1)}),
        # No w value that says anything: all of h is copied, what was found of it too.
        (f"{H}sh2ph1", {"stride": (2, 2), "padding": ((1, 1), (1, 1)), "out_size": (5, 5)}),
        (f"{H}ph1pw0", {"padding": ((1, 1), (1, 1))}),
        (f"{H}ph1sw1dw0iw0kw0ow0", {"padding": ((1, 1), (1, 1)), "in_size": (9, 9)}),
        # Depths that say nothing.
        (f"{H}id0kd0od0sd1pd0dd0", {"in_size": (9, 9)}),
        # Defaults, any order of tokens, 0 for "find it".
        ("kh3oc3ih9ic2", {"batch": 2, "groups": 1, "out_size": (7, 7)}),
        ("oc2kh1_g2_ih4_ic4_mb3_", {"batch": 3, "groups": 2}),
        (f"{H}oh0", {"out_size": (7, 7), "padding": ((0, 0), (0, 0))}),
        # The padding follows from the output size, the larger half behind; of a stride nothing is left over.
        (f"{H}oh10", {"padding": ((1, 2), (1, 2))}),
        ("ic2oc2ih6kh1oh3sh2", {"padding": ((0, 0), (0, 0))}),
        ("ic2oc2ih6kh3sh2ph1", {"padding": ((1, 0), (1, 0)), "out_size": (3, 3)}),
        # C divides toward zero.
        ("ic2oc2ih2kh3sh2", {"padding": ((0, 1), (0, 1)), "out_size": (1, 1)}),
        # The name is all that follows.
        (f'{H}n""', {"name": ""}),
        (f"{H}n", {"name": ""}),
        (f"{H}nresnet:res2a", {"name": "resnet:res2a"}),
        (f"{H}_nph1", {"name": "ph1", "padding": ((0, 0), (0, 0))}),
        (f'{H}n"a b_c"', {"name": "a b_c"}),
    ],
)
def test_a_label_is_read_as_benchdnn_reads_it(label: str, fields: dict[str, Any]) -> None:
    problem = Conv2dProblem.from_label(label)
    assert {name: getattr(problem, name) for name in fields} == fields
    again = Conv2dProblem.from_label(problem.label)
    assert (again, again.name) == (problem, problem.name)


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("ic2oc3iw9kw3", "from_label: text: expected a 2-D convolution, got a 1-D one, with only w"),
        ("mb1ic2iw9oc3ow9kw3pw1", "a 1-D one"),
        ("ic2oc3id5kd3", "from_label: text: expected a 2-D convolution, with only h and w, got a 3-D one"),
        (f"{H}id4iw4kd1kw1", "a 3-D one"),
        (f"{H}pd1", "a 3-D one"),
        (f"{H}iw8", "from_label: kw: expected a value, got none .a w value is given, so none is copied from h"),
        (f"{H}kw3", "from_label: iw: expected a value, got none"),
        (f"{H}pw1", "from_label: iw: expected a value, got none"),
        ("ic2oc3", "from_label: ih: expected a value, got none"),
        ("ic2ih9kh3", "from_label: oc: expected a value, got none"),
        (f"{H}__ph1", "from_label: text: expected a benchdnn label"),
        (f"_{H}", "from_label: text: expected a benchdnn label"),
        (f"{H} ph1", "from_label: text: expected a benchdnn label"),
        (f"{H}ph-1", "from_label: text: expected a benchdnn label"),
        (f"{H}ph", "from_label: text: expected a benchdnn label"),
        (f"{H}zh1", "from_label: text: expected a benchdnn label"),
        (f"{H}ph1ph2", "from_label: ph: expected one value, got two"),
        (f"{H}sw0", "from_label: iw: expected a value"),
        (f"{H}g0", "groups: expected an integer >= 1, got 0"),
        ("g3ic4oc3ih4kh1", "groups: expected a divisor of the 4 input channels, got 3"),
        # By the output size the padding would be negative.
        ("ic2oc2ih9kh1sh3oh3", "from_label: ph: expected a value, got none .oh=3 needs -1"),
        (f"{H}ph1oh5", "from_label: oh: expected the output size of the other values, got 5"),
        # Tokens behind a name are part of it in benchdnn, which must not pass for a padding.
        (f'{H}n"a"ph1', "name: expected printable text without double quotes"),
        (f'{H}n"a', "name: expected printable text without double quotes"),
        (f"{H}na\nb", "name: expected printable text"),
    ],
)
def test_what_is_not_read_is_refused_by_name(label: str, words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        Conv2dProblem.from_label(label)


@pytest.mark.parametrize(
    ("label", "sides"),
    [
        ("mb1ic16ih14oc16oh99kh3", "((43, 44), (43, 44))"), ("mb1ic16ih14oc16kh3ph4", "((4, 4), (4, 4))"),
        ("mb1ic16ih14oc16kh3ph0oh20", "((0, 8), (0, 8))"),
        ("mb1ic16ih14iw9oc16kh3kw3ph1pw9", "((1, 1), (9, 9))"),
    ],
)  # fmt: skip
def test_a_padding_larger_than_the_dilated_kernel_is_warned_of_with_the_padding(label: str, sides: str) -> None:
    with pytest.warns(UserWarning, match="larger|at most the size of the dilated kernel") as caught:
        Conv2dProblem.from_label(label)
    (warning,) = caught
    assert sides in str(warning.message)
    assert label in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize("label", ["mb1ic16ih14oc16kh3ph3", "mb1ic16ih14oc16kh3ph5dh1", "mb1ic1oc1ih9kh1sh2oh5"])
def test_a_padding_up_to_the_dilated_kernel_is_not_warned_of(label: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Conv2dProblem.from_label(label)


def random_problem(rng: random.Random) -> Conv2dProblem | None:
    def pair(low: int, high: int) -> tuple[int, int]:
        first = rng.randint(low, high)
        return first, rng.choice([first, rng.randint(low, high)])

    groups = rng.randint(1, 3)
    sides = pair(0, 3), pair(0, 3)
    try:
        return Conv2dProblem(
            rng.randint(1, 3), 2 * groups, pair(1, 12), groups, pair(1, 4), pair(1, 3),
            ((sides[0][0], sides[1][0]), (sides[0][1], sides[1][1])), pair(1, 2), groups, name=rng.choice(["", "a b"]),
        )  # fmt: skip
    except ConvError:
        return None


def test_what_is_written_computes_the_same_and_gives_benchdnn_all_it_needs() -> None:
    rng, made = random.Random(0), 0
    while made < 300:
        problem = random_problem(rng)
        if problem is None:
            continue
        made += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = Conv2dProblem.from_label(problem.label)
        assert again.label == problem.label
        same = [f for f in problem.__dataclass_fields__ if f not in ("padding",)]
        assert [getattr(again, f) for f in same] == [getattr(problem, f) for f in same]
        assert again.out_size == problem.out_size
        assert [before for before, _ in again.padding] == [before for before, _ in problem.padding]
        # All or nothing of w: with only some of it, benchdnn would take defaults for the rest.
        wide = {f"{t}w" for t in "iokp" if f"{t}w" in problem.label}
        assert len(wide) in (0, 4)
        assert ("sh" in problem.label) == ("sw" in problem.label) or not wide


def load(tmp_path: Path, text: str, **options: Any) -> list[tuple[str, int]]:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    return [(layer.name, layer.count) for layer in workloads.load(str(path), **options)]


def test_equal_labels_of_a_file_are_counted(tmp_path: Path) -> None:
    a, b = 'mb1ic3ih8oc4oh8kh3ph1n"a"', "mb2ic3ih8oc4oh8kh3ph1"
    assert load(tmp_path, f"{a}\n{b}\n{a} x3\n") == [("a", 4), (b, 1)]
    # However they are spelled.
    assert load(tmp_path, f"{b}\nic3oc4_ih8kh3ph1\n") == [(b, 2)]
    assert load(tmp_path, f"{b}\n{b.replace('mb2', 'mb1')}\n", batch=4) == [(b.replace("mb2", "mb4"), 2)]
    with pytest.raises(WorkloadError, match="layer name 'a' is used twice, with different labels"):
        load(tmp_path, f"{a}\n{a.replace('mb1', 'mb2')}\n")
    with pytest.raises(WorkloadError, match="expected a count from 1"):
        load(tmp_path, f"{a} x999999\n{a} x2\n")


def test_a_line_is_split_as_benchdnn_splits_it(tmp_path: Path) -> None:
    a, b = "mb1ic3ih8oc4oh8kh3ph1nfirst", 'mb1ic3ih8oc4oh8kh3ph1n"sec ond#2"'
    assert load(tmp_path, f"{a} {b}\n") == [("first", 1), ("sec ond#2", 1)]
    assert load(tmp_path, f"{a} x2 {b} x3 # x4\n#{a}\n") == [("first", 2), ("sec ond#2", 3)]
    assert load(tmp_path, f"{a}#3\n") == [("first#3", 1)]
    for text, words in (
        ("--mb=2\n", "expected only labels, got an option of benchdnn: '--mb=2'"),
        (f"{a}\nx2\n", r"mine\.txt:2: from_label: text"),
        ("mb1ic3iw8oc4kw3\n", "mine.txt:1: from_label: text: expected a 2-D convolution, got a 1-D one"),
    ):
        with pytest.raises(WorkloadError, match=words):
            load(tmp_path, text)


@pytest.mark.parametrize("text", ["ih8kh3oc4ic3", "mb1_g2ic4oc4ih8kh3", "oc4ic3_ih8kh3nname", "g2_mb1_ic4oc4ih8kh3"])
def test_a_label_on_the_command_line_may_begin_with_any_token(text: str) -> None:
    (layer,) = workloads.load(text)
    assert layer.workload == "label"
