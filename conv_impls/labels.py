"""One convolution as one line of text: parse and write labels in the grammar of oneDNN's benchdnn.

    g2mb1_ic64ih56_oc64oh28_kh3sh2ph1_n"res2a"

Source: oneDNN, tests/benchdnn, `str2desc` (conv/conv_aux.cpp) and `sanitize_desc` (common.cpp). Labels are parsed
exactly as there. Dilation counts from 0. Defaults: mb 2, g 1. A missing output size is computed from the padding, and a
missing padding from the output size. h is copied to w only if no w value is given at all. The name is all text after
``n``.
Limits: 2-D only. Two added tokens, written only for values that are not the default, hold what benchdnn keeps outside
its descriptor: ``dt"float64"`` and ``pm"reflect"``. docs/decisions/0005-labels.md lists what benchdnn accepts and this
parser refuses.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from conv_impls import validation as check
from conv_impls.validation import Pair

if TYPE_CHECKING:
    from conv_impls.problem import Conv2dProblem

NUMBERS = r"(g|mb|[io]c|[iokspd][dhw])([0-9]{1,18})"
# One "_" may follow a token; the name extends to the end of the text.
_TOKEN = re.compile(rf'(?:{NUMBERS}|(dt|pm)"([^"]*)")_?|n(.*)', re.DOTALL)
# Default values of an axis: an axis with only these is not given. -1 means a padding that is to be computed.
_NONE = {"i": 0, "k": 0, "o": 0, "s": 1, "p": -1, "d": 0}
EXAMPLE = 'mb1ic64ih56oc64oh56kh3ph1n"name"'


class Axis(NamedTuple):
    """One axis of a label."""

    size: int
    kernel: int
    stride: int
    sides: Pair
    dilation: int


def is_label(text: str) -> bool:
    """Whether a text begins like a label."""
    return re.match(NUMBERS, text) is not None


def read(text: str) -> tuple[Any, ...]:
    """Parse a label into the arguments of `Conv2dProblem`."""
    if not isinstance(text, str):
        check.fail_type("from_label", "text", "a str", type(text).__name__)
    numbers, words = _tokens(text)
    for token in ("ic", "oc"):
        if token not in numbers:
            _fail(text, token, "a value", "none")
    sizes, kernels, strides, sides, dilations = zip(*_axes(text, numbers), strict=True)
    name = words.get("n", "")
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1]
    return (
        numbers.get("mb", 2), numbers["ic"], sizes, numbers["oc"], kernels, strides, sides, dilations,
        numbers.get("g", 1), words.get("pm", "zeros"), words.get("dt", "float32"), name,
    )  # fmt: skip


def warn(text: str, problem: Conv2dProblem) -> None:
    """Warn if a padding is likely a mistake: windows at the edge read only padding."""
    extents = [(k - 1) * d + 1 for k, d in zip(problem.kernel_size, problem.dilation, strict=True)]
    if any(max(sides) > extent for sides, extent in zip(problem.padding, extents, strict=True)):
        got = f"from_label: padding: expected at most the size of the dilated kernel, got {problem.padding}"
        warnings.warn(f"{got} (label {text!r}); check the output size and ph", UserWarning, stacklevel=3)


def write(problem: Conv2dProblem) -> str:
    """The label of a problem, complete enough for benchdnn to read the same problem."""
    p = problem
    fields = {
        "i": p.in_size, "o": p.out_size, "k": p.kernel_size, "s": p.stride,
        "p": (p.padding[0][0], p.padding[1][0]), "d": (p.dilation[0] - 1, p.dilation[1] - 1),
    }  # fmt: skip
    wide = any(h != w for h, w in fields.values())
    text = {}
    for token, (h, w) in fields.items():
        hidden = h == w == {"s": 1, "d": 0}.get(token)
        text[token] = "" if hidden else f"{token}h{h}" + (f"{token}w{w}" if wide else "")
    head = (f"g{p.groups}" if p.groups != 1 else "") + f"mb{p.batch}"
    body = f"ic{p.in_channels}{text['i']}oc{p.out_channels}{text['o']}"
    tail = text["k"] + text["s"] + text["p"] + text["d"]
    quoted = {"dt": p.dtype if p.dtype != "float32" else "", "n": p.name}
    quoted["pm"] = p.padding_mode if p.padding_mode != "zeros" else ""
    return head + body + tail + "".join(f'{t}"{quoted[t]}"' for t in ("dt", "pm", "n") if quoted[t])


def _fail(text: str, argument: str, expected: str, got: object, facts: str = "") -> NoReturn:
    check.fail("from_label", argument, expected, got, f"{facts}label {text!r}")


def _tokens(text: str) -> tuple[dict[str, int], dict[str, str]]:
    """Split a label into numbers and words; refuse unknown and repeated tokens."""
    numbers: dict[str, int] = {}
    words: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        # A name needs a number before it: other words may begin with n, too.
        if match is None or not (numbers or match[1]):
            facts = f"position {at} of {text!r}; tokens are g mb ic ih iw oc oh ow kh kw sh sw ph pw dh dw n dt pm"
            check.fail("from_label", "text", f"a benchdnn label such as {EXAMPLE}", repr(text[at : at + 12]), facts)
        token, digits, word, quoted, name = match.groups()
        key = token or word or "n"
        if key in numbers or key in words:
            _fail(text, key, "one value", "two")
        if token:
            numbers[token] = int(digits)
        else:
            words[key] = quoted if word else name
        at = match.end()
    return numbers, words


def _axes(text: str, numbers: dict[str, int]) -> tuple[Axis, Axis]:
    """H and W of a label."""
    d, h, w = ({t: numbers.get(t + axis, none) for t, none in _NONE.items()} for axis in "dhw")
    if _given(d):
        _fail(text, "text", "a 2-D convolution, with only h and w", "a 3-D one, which has depths (id, kd, ...)")
    if _given(w) and not _given(h):
        _fail(text, "text", "a 2-D convolution", "a 1-D one, with only w", "write it as ih1 kh1 and iw kw; ")
    first = _axis(text, "h", h, "")
    return first, _axis(text, "w", w, "a w value is given, so none is copied from h; ") if _given(w) else first


def _given(axis: dict[str, int]) -> bool:
    # A padding of 0 counts as not given.
    return any(max(axis[t], 0) != max(none, 0) for t, none in _NONE.items())


def _axis(text: str, axis: str, value: dict[str, int], why: str) -> Axis:
    i, k, o, s, p, d = (value[t] for t in "ikospd")
    for token in "ik":
        if not value[token]:
            _fail(text, token + axis, "a value", "none", why)
    if s < 1:
        _fail(text, f"s{axis}", "an integer >= 1", s)
    extent = (k - 1) * (d + 1) + 1
    p = 0 if p < 0 and not o else p
    o = o or _quotient(i - extent + 2 * p, s) + 1
    if o < 1:
        # `Conv2dProblem` raises the error.
        return Axis(i, k, s, (p, p), d + 1)
    # Rows that the windows span beyond the input: the sum of both paddings.
    missing = (o - 1) * s - i + extent
    if p < 0 and missing < -1:
        _fail(text, f"p{axis}", "a value", "none", f"o{axis}={o} needs {_quotient(missing, 2)}; ")
    before = max(0, missing // 2) if p < 0 else p
    after = missing - before
    # oneDNN's own condition: the windows leave less than one stride unused.
    if after <= -s:
        facts = f"i{axis}={i}, k{axis}={k}, s{axis}={s}, p{axis}={before}, d{axis}={d}; "
        _fail(text, f"o{axis}", "the output size of the other values", o, facts)
    return Axis(i, k, s, (before, max(0, after)), d + 1)


def _quotient(a: int, b: int) -> int:
    """Division toward zero, as in C: a kernel slightly larger than the image still has one output."""
    return a // b if a >= 0 else -(-a // b)
