"""OpenCV's dnn module on the CPU: a network of one Conv with constant weights.

Its 3x3 kernels of stride 1 may use Winograd with large tiles, so it is held to that bound. Limits: input and output are
copied into and out of the network's own blobs in each call, which is how its users call it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from conv_impls import Conv2dProblem
from conv_impls.registry import Prepared, register
from conv_impls.validation import Array

from ..machine.usage import READ_BACK
from . import copying, zeros_float32
from .onnx_model import model


@register(
    "opencv", idea="a network of OpenCV's dnn module, one Conv with constant weights", source="OpenCV, modules/dnn",
    accuracy="tile6", nan_spread="tile of 6 x 6 outputs", threads="argument", supports=zeros_float32,
)  # fmt: skip
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    cv2.setNumThreads(threads)
    READ_BACK["opencv"] = cv2.getNumThreads
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model(problem, weight, bias), np.uint8))
    network.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)

    def bind(x: Array) -> tuple[Callable[[], Any], Callable[[Any], Array]]:
        def call() -> Any:
            network.setInput(x)
            return network.forward()

        return call, np.asarray

    return Prepared(copying(bind), algorithm="dnn", bind=bind)
