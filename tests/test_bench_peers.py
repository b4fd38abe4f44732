"""Other libraries as backends: right on layers of every kind where they are installed, else said to be missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import apart
from msgspec.structs import replace

from bench import peers
from bench.machine.peaks import Peaks
from bench.peers import GRADIENTS, OWN, PEERS, PINNED, declare, load, missing, packages, peer, symmetric, zeros_float32
from bench.run.contender import Contender, Layer
from bench.run.directions import as_forward, every
from bench.run.driver import check_cases
from bench.run.isa import UNHELD
from bench.run.options import read_backends
from bench.run.process import Worker
from bench.store.records import CACHES, Case
from conv_impls import Conv2dProblem, conv2d_input, conv2d_weight, get_backend
from conv_impls.errors import BackendError
from conv_impls.registry import Backend

ROOT = Path(__file__).parent.parent
INSTALLED = [name for name in PEERS if missing(name) is None]
ABSENT = [name for name in PEERS if missing(name) is not None]
LABELS = {
    "first layer": "mb1ic3ih16oc8kh7sh2ph3",
    "batch": "mb3ic8ih9iw7oc4kh3kw3ph1pw1",
    "one pixel kernel": "mb1ic16ih6oc8kh1",
    "strided, one pixel": "mb1ic8ih8oc4kh1sh2",
    "uneven padding": "mb1ic4ih8oc4oh8kh4ph1",
    "dilation": "mb1ic4ih12oc4kh3dh1ph2",
    "groups": "g2mb1ic8ih7oc4kh3ph1",
    "depthwise": "g8mb1ic8ih9oc8kh3ph1sh2",
    "Winograd's": "mb1ic16ih14oc16kh3ph1",
}


# Backends that hand the weights over at each call.
EAGER = "torch_nchw", "torch_channels_last", "auto_eager"


# What peers import.
LIBRARIES = "torch", "onnx", "onnxruntime", "openvino", "cv2", "jax"


def child(code: str, folder: Path = ROOT) -> str:
    """What a Python process that runs this code in this folder prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cases(backend: str, threads: int = 1) -> list[Case]:
    return [
        Case("labels", kind, Conv2dProblem.from_label(label).label, 1, backend, threads, direction)
        for direction in ("fwd", "bwd_d", "bwd_w")
        for kind, label in LABELS.items()
    ]


def refused(case: Case) -> bool:
    """Whether a library may say that it cannot do this."""
    return case.layer == "uneven padding" or case.direction != "fwd"


def known_faults(case: Case) -> bool:
    # OpenCV leaves padding only at the end out of its one pixel kernels.
    return (case.backend, case.layer, case.direction) == ("opencv", "strided, one pixel", "bwd_d")


@pytest.mark.parametrize("backend", [*INSTALLED, *OWN])
def test_a_peer_is_right_on_layers_of_every_kind(backend: str) -> None:
    found = list(check_cases(cases(backend, 2), 60.0, {}, 0))
    for case, status, reason in found:
        expected = ("ok", "unsupported") if refused(case) else ("ok",)
        assert status in (("wrong_result",) if known_faults(case) else expected), (case, reason)
        assert status == "ok" or reason
    assert sum(status == "ok" for _, status, _ in found) > len(LABELS)


@pytest.mark.parametrize("backend", [*INSTALLED, *OWN])
def test_a_peer_takes_turns_in_a_process_of_its_own(backend: str, tmp_path: Path) -> None:
    worker = Worker(backend, 1, 60.0, {})
    (given,) = (case for case in cases(backend) if (case.layer, case.direction) == ("Winograd's", "fwd"))
    layer = Layer(given.problem, "fwd", 0, tmp_path)
    for cache in CACHES:
        # Few copies: JAX compiles for each, and the time for making them is limited.
        contender = Contender(replace(given, cache=cache), worker, layer, tmp_path, 60.0, 0.06, 2**15, 0)
        contender.prepare()
        assert contender.status == "ok", contender.reason
        assert contender.facts["algorithm"]
        assert contender.facts["mode"] == ("eager" if backend in EAGER else "planned")
        if backend.startswith("torch"):
            assert "torch 1" in contender.facts["threads_seen"]
        contender.turn(0)
        contender.last()
        record = contender.record({}, Peaks({}), "e")
        assert record.status == "ok", record.reason
        assert record.samples_s
        assert min(record.samples_s) > 0
    worker.close()


def test_a_peer_that_is_not_installed_says_what_to_do() -> None:
    for _, status, reason in check_cases([cases(backend)[0] for backend in ABSENT], 1.0, {}, 0):
        assert status == "unsupported"
        assert reason.endswith("not installed; run: make setup-peers")


def test_every_peer_was_tested_one_way_or_the_other() -> None:
    assert sorted(INSTALLED + ABSENT) == sorted(PEERS)
    for name, entry in PEERS.items():
        assert entry.needs
        assert (name in ABSENT) == any(find_spec(package) is None for package in entry.needs)


def test_lists_of_peers_have_one_order() -> None:
    assert [*PEERS] == [
        "torch_nchw", "torch_channels_last", "torch_prepacked", "onnxruntime", "openvino", "openvino_channels_last",
        "opencv", "jax", "jax_channels_last",
    ]  # fmt: skip
    assert [*OWN] == ["auto_strict", "auto_eager"]
    assert PINNED == ("jax", "jax_channels_last")
    assert UNHELD == ("onnxruntime", "openvino", "openvino_channels_last", "opencv", "jax", "jax_channels_last")


def test_packages_are_named_as_they_are_installed() -> None:
    assert packages(["opencv", "auto", "onnxruntime"]) == ["opencv-python-headless", "onnx", "onnxruntime"]


def test_loading_registers_once_and_never_over_another(registered: dict[str, Backend]) -> None:
    registered.pop("auto_strict", None)
    for _ in range(2):
        load("auto_strict")
    assert get_backend("auto_strict").function is OWN["auto_strict"].function
    registered["auto_strict"] = get_backend("numpy_strided")
    with pytest.raises(BackendError, match="the name is taken"):
        load("auto_strict")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "cv2" else True)
    assert missing("opencv") == "cv2 not installed; run: make setup-peers"
    assert missing("torch_nchw") is None
    assert missing("a plug-in's") is None


def test_a_wrong_declaration_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declare, "DECLARED", dict(declare.DECLARED))
    with pytest.raises(TypeError, match="sauce"):
        peer("another", sauce="a typing error")
    with pytest.raises(BackendError, match=r"taken by bench\.peers\.torch_peer"):
        peer("torch_nchw")(lambda problem, weight, bias, threads: None)
    assert peer("another", needs=("one",), idea="i")(print) is print
    assert declare.DECLARED["another"].needs == ("one",)


def test_a_peer_is_one_more_file(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "bench/peers/another_peer.py").write_text(
        "from .declare import peer\n"
        "@peer('another', needs=('a_library',))\n"
        "def prepare(problem, weight, bias, threads):\n"
        "    import a_library\n"
    )
    code = "from bench.peers import PEERS, missing; print([*PEERS][-1], '|', missing('another'))"
    assert child(code, tmp_path) == "another | a_library not installed; run: make setup-peers\n"


def test_the_word_peers_stands_for_those_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: True)
    assert read_backends("peers,auto") == [*PEERS, "auto"]
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(Exception, match="no peer is installed; run: make setup-peers"):
        read_backends("peers")


def test_listing_and_choosing_peers_imports_none() -> None:
    code = (
        "from bench.run.options import Options; Options(backends='fast', threads='1').cases();"
        "from bench.peers import PEERS, missing; [missing(name) for name in PEERS];"
        f"import sys; print([m for m in {LIBRARIES} if m in sys.modules])"
    )
    assert child(code) == "[]\n"


def test_importing_the_folder_of_peers_imports_no_library_and_registers_nothing() -> None:
    watched = *LIBRARIES, "numba"
    code = (
        "import sys, bench.peers; from conv_impls import backends;"
        f"print([m for m in {watched} if m in sys.modules], [n for n in backends() if n in bench.peers.PEERS])"
    )
    assert child(code) == "[] []\n"
    # The test itself sees an import.
    assert child(f"import sys, numba; print([m for m in {watched} if m in sys.modules])") == "['numba']\n"


@pytest.mark.parametrize(
    ("label", "fits"),
    [
        ("ic3ih8oc4kh3ph1", True), ("ic3ih8oc4oh4kh3sh2ph1", True), ("ic3ih8oc4oh8kh4ph1", False),
        ("ic3ih7oc4oh3kh3sh2", True), ('ic3ih8oc4kh3ph1pm"reflect"', False),
    ],
)  # fmt: skip
def test_padding_alike_on_both_sides(label: str, fits: bool) -> None:
    assert (symmetric(Conv2dProblem.from_label(label)) is None) == fits


def test_zeros_in_float32() -> None:
    problem = Conv2dProblem.from_label("ic3ih8oc4kh3ph1")
    assert zeros_float32(problem) is None
    assert zeros_float32(problem.replace(dtype="float64"))
    assert zeros_float32(problem.replace(padding_mode="reflect"))


TORCH_GRADIENTS = [
    (label, direction)
    for label in (
        "mb2ic3ih11iw10oc4kh3kw5sh2sw3ph1pw2", "mb1ic2ih12iw11oc3kh2kw2sh4sw3", "mb1ic3ih12iw11oc4kh3kw2dh1dw2ph2pw2",
        "mb2ic4ih7oc6kh1sh2", "g2mb2ic4ih9oc6kh3ph1sh2",
    )
    for direction in ("bwd_d", "bwd_w")
    if not (label.startswith("g2") and direction == "bwd_w")
]  # fmt: skip


def gradient_error(label: str, direction: str) -> float:
    """The largest difference between torch's gradient and ours, in the arrays of the mapped convolution."""
    problem = Conv2dProblem.from_label(label).replace(dtype="float64")
    load("torch_nchw")
    assert get_backend("torch_nchw").supports(problem) is None
    rng = np.random.default_rng(0)
    x, w, g = (rng.standard_normal(s) for s in (problem.input_shape, problem.weight_shape, problem.output_shape))
    settings: dict[str, Any] = {n: getattr(problem, n) for n in ("stride", "padding", "dilation", "groups")}
    mapped = as_forward(problem, direction)
    if direction == "bwd_d":
        image = np.zeros(mapped.input_shape)
        image[:, :, :: problem.stride[0], :: problem.stride[1]] = g
        grouped = w.reshape(problem.groups, -1, *w.shape[1:])
        kernel = grouped[..., ::-1, ::-1].swapaxes(1, 2).reshape(mapped.weight_shape)
        expected = conv2d_input(x.shape, w, g, **settings)
    else:
        rows, columns = mapped.in_size
        image, kernel = x[:, :, :rows, :columns].swapaxes(0, 1), g.swapaxes(0, 1)
        expected = conv2d_weight(x, w.shape, g, **settings).swapaxes(0, 1)
    assert every(problem, direction) == (problem.stride if direction == "bwd_d" else (1, 1))
    out = np.full(mapped.output_shape, np.nan)
    made = GRADIENTS["torch_nchw", direction](problem, np.ascontiguousarray(kernel), 1)
    made.call(np.ascontiguousarray(image), out)
    return float(np.abs(out - expected).max() / np.abs(expected).max())


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_gradients_of_torch_are_ours_in_the_arrays_of_the_mapped_convolution() -> None:
    errors = apart(gradient_error, TORCH_GRADIENTS)
    assert max(errors) < 1e-12, dict(zip(TORCH_GRADIENTS, errors, strict=True))
