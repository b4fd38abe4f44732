"""Engines to set against each other: other libraries' convolutions and our own calls, each behind one function.

An engine is ``prepare(problem, x, weight, threads) -> Ready``: it does whatever constant weights allow beforehand, in
the library's best way, and hands back the call to time. `ENGINES` gives the functions short names; a dotted path to a
function of your own (``package.module.prepare``) is an engine as well, and so is ``plan:BACKEND``. A library that is
not installed, or cannot do a problem, says so and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from conv_impls import Conv2dProblem, UnsupportedError
from conv_impls.validation import Array

ENGINES = {
    "torch_nchw": "bench.peers.torch_peer.nchw",
    "torch_channels_last": "bench.peers.torch_peer.channels_last",
    "torch_prepacked": "bench.peers.torch_peer.prepacked",
    "onnxruntime": "bench.peers.onnxruntime_peer.prepare",
    "openvino": "bench.peers.openvino_peer.prepare",
    "openvino_channels_last": "bench.peers.openvino_peer.channels_last",
    "planned": "bench.peers.ours.planned",
    "strict": "bench.peers.ours.strict",
    "eager": "bench.peers.ours.eager",
}
OURS = ("planned", "strict", "eager")
PLAN = "plan:"


@dataclass(frozen=True)
class Ready:
    """A convolution ready to be timed: ``read(call())`` is y as an array (N, C_out, H_out, W_out)."""

    call: Callable[[], Any]
    algorithm: str = ""
    read: Callable[[Any], Array] = np.asarray


Prepare = Callable[[Conv2dProblem, Array, Array, int], Ready]


def is_peer(name: str) -> bool:
    """Whether this engine is another library's."""
    return name not in OURS and not name.startswith(PLAN)


def load(name: str) -> tuple[Prepare, dict[str, str]]:
    """The engine of this name, and what its module's ``facts()`` tells of the library: versions, settings.

    Raises
    ------
    ImportError, AttributeError
        The library is not installed, or the dotted path leads nowhere.
    """
    backend = name.removeprefix(PLAN) if name.startswith(PLAN) else ""
    path, _, function = ENGINES.get("planned" if backend else name, name).rpartition(".")
    module = import_module(path)
    prepare: Any = getattr(module, function)
    facts = module.facts() if hasattr(module, "facts") else {}
    return (partial(prepare, backend=backend) if backend else prepare), facts


def symmetric(problem: Conv2dProblem) -> tuple[int, int]:
    """The padding as (h, w), for libraries that know no other; rows at the end that no output reads do not matter.

    Raises
    ------
    UnsupportedError
        No such padding computes the problem.
    """
    (top, _), (left, _) = problem.padding
    alike = problem.replace(padding=((top, top), (left, left)))
    if alike.out_size != problem.out_size or problem.padding_mode != "zeros":
        raise UnsupportedError("this library pads with zeros, alike on opposite sides")
    return top, left
