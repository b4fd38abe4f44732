"""Read every model of five wheels that people use, end to end; exit 1 where what is read is not what is expected.

    .venv/bin/python tests/wheels.py [FOLDER]

The wheels come from the package index at the versions named here, into FOLDER or a temporary one; nothing of them is
kept in this repository, and no ordinary test needs the network. Where ONNX Runtime is installed (`make setup-peers`)
each model runs once, and the size of every convolution's output must be what it computes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conv_impls.workloads import WorkloadError, read

INSIDE, LINES = "12 are inside If", "6 are 1-D"
# Wheel -> model -> the size asked for, layers, and what is said of its convolutions.
WHEELS: dict[str, dict[str, tuple[str, int, str]]] = {
    "rapidocr-onnxruntime==1.4.4": {
        "ch_PP-OCRv4_det_infer": ("1,3,480,640", 39, "62 of 64 convolutions; 2 are transposed (ConvTranspose)"),
        "ch_PP-OCRv4_rec_infer": ("1,3,48,320", 30, "38 of 38 convolutions"),
        "ch_ppocr_mobile_v2.0_cls_infer": ("1,3,48,192", 41, "53 of 53 convolutions"),
    },
    "ddddocr==1.6.1": {
        "common": ("1,1,64,160", 11, "21 of 21 convolutions"),
        "common_old": ("1,1,64,160", 0, "21 are quantized (ConvInteger)"),
        "common_det": ("", 35, "83 of 83 convolutions"),
    },
    "nudenet==3.4.2": {"320n": ("1,3,320,320", 35, "64 of 64 convolutions")},
    "magika==1.0.3": {"model": ("1,2048", 1, "1 of 1 convolutions")},
    "silero-vad==6.2.3": {
        "silero_vad": ("", 0, INSIDE), "silero_vad_op18_ifless": ("", 0, INSIDE),
        "silero_vad_16k_op15": ("", 0, LINES), "silero_vad_16k_sequence": ("", 0, LINES),
        "silero_vad_half": ("", 0, LINES), "silero_vad_openvino_16k": ("", 0, LINES),
    },
}  # fmt: skip


def main(folder: Path) -> int:
    """Read all of them and print a table; how many are not as expected."""
    wrong = 0
    for wheel, models in WHEELS.items():
        found = fetched(wheel, folder)
        if found.keys() != models.keys():
            wrong += 1
            print(f"{wheel}: expected the models {sorted(models)}, got {sorted(found)}")
        for name in sorted(found.keys() & models.keys()):
            size, *expected = models[name]
            layers, said, sizes = taken(found[name], size)
            checked = "not run" if not sizes or find_spec("onnxruntime") is None else computed(found[name], size, sizes)
            fine = [layers, said] == expected and checked in ("not run", "as computed")
            wrong += not fine
            print(
                f"{wheel:28} {name:31} {size or '-':12} {layers:3} layers  {said}  [{checked}]"
                + ("" if fine else "  WRONG")
            )
    return wrong


def fetched(wheel: str, folder: Path) -> dict[str, Path]:
    """The models of a wheel, by name."""
    there = folder / wheel.partition("=")[0]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(there),
    ]
    subprocess.run([*pip, wheel], check=True)
    (file,) = there.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        paths = [Path(archive.extract(name, there)) for name in archive.namelist() if name.endswith(".onnx")]
    return {path.stem: path for path in paths}


def taken(path: Path, size: str) -> tuple[int, str, Counter[tuple[int, ...]]]:
    """How many layers it has, what is said of its convolutions, and the sizes of their outputs, with their counts."""
    try:
        workload = read(str(path), size=size)
    except WorkloadError as error:
        return 0, str(error).rpartition("no 2-D Conv to measure in this model: ")[2], Counter()
    sizes: Counter[tuple[int, ...]] = Counter()
    for layer in workload.layers:
        sizes[layer.problem.output_shape] += layer.count
    return len(workload.layers), workload.coverage, sizes


def computed(path: Path, size: str, sizes: Counter[tuple[int, ...]]) -> str:
    """Whether ONNX Runtime's convolutions have outputs of these sizes."""
    import numpy as np
    import onnx
    import onnxruntime

    model = onnx.load(path)
    outputs = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in known)
    session: Any = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (x,) = session.get_inputs()
    shape = [int(number) for number in size.split(",")] if size else x.shape
    dtype = {"tensor(float)": np.float32, "tensor(int32)": np.int32}[x.type]
    ran = Counter(value.shape for value in session.run(outputs, {x.name: np.zeros(shape, dtype)}))
    return "as computed" if ran == sizes else f"computed: {sorted(ran - sizes)}, read: {sorted(sizes - ran)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(min(1, main(Path(sys.argv[1] if len(sys.argv) > 1 else temporary))))
