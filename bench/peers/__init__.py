"""Other libraries as backends: registered with the decorator every backend uses, one file a library.

A file of this folder is imported only in the process that measures one of its backends, and only where its libraries
are installed (``make setup-peers``). Each backend does whatever constant weights allow beforehand, in the library's
best way, keeps tensors of the library's own (`conv_impls.registry.Prepared.bind`), and is held to the bound of direct
summation. A peer of your own needs no line here: any backend that the registry finds can be named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from conv_impls import Conv2dProblem
from conv_impls.registry import Prepared
from conv_impls.validation import Array

# Backend -> the module that registers it, and the packages it needs.
_TORCH = ".torch_peer", ("torch",)
_OPENVINO = ".openvino_peer", ("openvino",)
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch_nchw": _TORCH,
    "torch_channels_last": _TORCH,
    "torch_prepacked": _TORCH,
    "onnxruntime": (".onnxruntime_peer", ("onnxruntime", "onnx")),
    "openvino": _OPENVINO,
    "openvino_channels_last": _OPENVINO,
    "opencv": (".opencv_peer", ("cv2", "onnx")),
    "jax": (".jax_peer", ("jax",)),
}
# Those that count the cores of their process themselves.
PINNED = ("jax",)
# Packages installed under another name than they are imported by.
DISTRIBUTIONS = {"cv2": "opencv-python-headless"}
# Our own calls in other ways than a plan of `auto`.
OWN = {"auto_strict": ".ours", "auto_eager": ".ours"}

# Gradients that a library computes by a call of its own: (problem, weight of `as_forward`, threads) -> Prepared.
Gradient = Callable[[Conv2dProblem, Array, int], Prepared]
GRADIENTS: dict[tuple[str, str], Gradient] = {}


def missing(name: str) -> str | None:
    """What must be installed before this peer can run, or None."""
    _, packages = PEERS.get(name, ("", ()))
    absent = [package for package in packages if find_spec(package) is None]
    return f"{', '.join(absent)} not installed; run: make setup-peers" if absent else None


def packages(names: Iterable[str]) -> list[str]:
    """What these backends need beyond the package, by the names they are installed under."""
    needed = [package for name in names for package in PEERS.get(name, ("", ()))[1]]
    return [DISTRIBUTIONS.get(package, package) for package in dict.fromkeys(needed)]


def load(name: str) -> None:
    """Import the file that registers this backend, if it is one of this folder's."""
    module = OWN.get(name) or PEERS.get(name, (None,))[0]
    if module:
        import_module(module, __package__)


def symmetric(problem: Conv2dProblem) -> str | None:
    """For libraries that pad alike on opposite sides with zeros: None, or why that does not do.

    Rows at the end that no output reads do not matter.
    """
    (top, _), (left, _) = problem.padding
    try:
        alike = problem.replace(padding=((top, top), (left, left)))
    except ValueError:
        alike = None
    if alike is None or alike.out_size != problem.out_size or problem.padding_mode != "zeros":
        return "this library pads with zeros, alike on opposite sides"
    return None


def zeros_float32(problem: Conv2dProblem) -> str | None:
    """For libraries that are asked for float32 and padding with zeros: None, or why that does not do."""
    fits = problem.dtype == "float32" and problem.padding_mode == "zeros"
    return None if fits else "this library is asked for float32 and padding with zeros only"


def copying(
    bind: Callable[[Array], tuple[Callable[[], Any], Callable[[Any], Array]]],
) -> Callable[[Array, Array], None]:
    """The ``call(x, out)`` of a backend that has only ``bind``: correct, and not for timing."""

    def call(x: Array, out: Array) -> None:
        bound, read = bind(x)
        out[...] = read(bound())

    return call
