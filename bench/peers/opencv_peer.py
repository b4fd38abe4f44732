"""OpenCV's dnn module on the CPU: a network of one Conv with constant weights.

Its 3x3 kernels of stride 1 may use Winograd with large tiles, so the error bound of Winograd applies. Limits: each call
copies input and output to and from the network's own blobs, as in normal use of the library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conv_impls import Conv2dProblem
from conv_impls.registry import Bound, Prepared
from conv_impls.validation import Array

from ..machine.usage import READ_BACK
from .declare import copying, peer, zeros_float32
from .onnx_model import model


@peer(
    "opencv", needs=("cv2", "onnx"), distributions={"cv2": "opencv-python-headless"}, order=4,
    idea="a network of OpenCV's dnn module, one Conv with constant weights", source="OpenCV, modules/dnn",
    accuracy="tile6", nan_spread="tile of 6 x 6 outputs", threads="argument", supports=zeros_float32,
)  # fmt: skip
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    import cv2

    cv2.setNumThreads(threads)
    READ_BACK["opencv"] = cv2.getNumThreads
    network = cv2.dnn.readNetFromONNX(np.frombuffer(model(problem, weight, bias), np.uint8))
    network.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)

    def bind(x: Array) -> Bound:
        def call() -> Any:
            network.setInput(x)
            return network.forward()

        def rebind(new: Array) -> None:
            # The call itself copies the image into the network.
            nonlocal x
            x = new

        return Bound(call, np.asarray, rebind)

    return Prepared(copying(bind), algorithm="dnn", bind=bind)
