"""ONNX Runtime on the CPU: a model of one Conv with constant weights, input and output bound once.

With constant weights, the session packs them and uses its blocked layout (NCHWc) if it is faster. Input and output stay
NCHW; their reorders are part of the measured time.
"""

from __future__ import annotations

from conv_impls import Conv2dProblem
from conv_impls.registry import Bound, Prepared
from conv_impls.validation import Array

from ..machine.usage import READ_BACK
from .declare import copying, peer, zeros_float32
from .onnx_model import model


@peer(
    "onnxruntime", needs=("onnxruntime", "onnx"), order=2,
    idea="a session of ONNX Runtime over one Conv node with constant weights", source="ONNX Runtime",
    threads="argument", supports=zeros_float32,
)  # fmt: skip
def prepare(problem: Conv2dProblem, weight: Array, bias: Array | None, threads: int) -> Prepared:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Hide warnings, such as those about unused initialisers. They do not matter here.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model(problem, weight, bias), options, providers=["CPUExecutionProvider"])

    READ_BACK["onnxruntime"] = lambda: session.get_session_options().intra_op_num_threads

    def bind(x: Array) -> Bound:
        # Not ortvalue_from_numpy: that one shares the memory of x, and update_inplace would write to it.
        image = onnxruntime.OrtValue.ortvalue_from_shape_and_type(x.shape, x.dtype.type)
        image.update_inplace(x)
        y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(problem.output_shape, x.dtype.type)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", image)
        binding.bind_ortvalue_output("y", y)
        return Bound(lambda: session.run_with_iobinding(binding), lambda _: y.numpy(), image.update_inplace)

    return Prepared(copying(bind), algorithm="Conv", bind=bind)
