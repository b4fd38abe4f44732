"""The networks are what their sources say: published figures and, where there is one, the ONNX model of a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import onnx.backend.test
import pytest

from conv_impls import Conv2dProblem, workloads
from conv_impls.workloads import Layer

ROOT = Path(__file__).parent.parent
LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"


def one_bias(layer: Layer) -> int:
    return layer.problem.out_channels


def normalised(layer: Layer) -> int:
    """Two numbers an output channel for batch normalisation; on one pixel there is a bias instead."""
    return layer.problem.out_channels * (1 if layer.problem.in_size == (1, 1) else 2)


@dataclass(frozen=True)
class Published:
    """What is said of a network elsewhere: of its convolutions the number and GMAC, of all of it the parameters."""

    layers: int
    convolutions: int
    gmacs: float
    within: float
    parameters: int = 0
    # What each convolution has besides its weights, and what is no convolution of the file.
    besides: Callable[[Layer], int] = normalised
    elsewhere: int = 0


UP = sum(4 * c * (c // 2) + c // 2 for c in (1024, 512, 256, 128))
# Sources are in the files. Parameters are torchvision's; those of U-Net are of three channels in.
PUBLISHED = {
    "alexnet": Published(5, 5, 0.666, 5e-4),
    "squeezenet": Published(18, 26, 0.35, 5e-3, 1_235_496, one_bias),
    "densenet121": Published(67, 121, 2.83, 5e-3),
    "inception_v1": Published(49, 57, 1.43, 5e-3),
    "resnext50_32x4d": Published(24, 53, 4.23, 5e-3, 25_028_904, elsewhere=2048 * 1000 + 1000),
    "efficientnet_b0": Published(46, 81, 0.39, 7e-3, 5_288_548, elsewhere=1280 * 1000 + 1000),
    "mobilenet_v3_large": Published(46, 64, 0.219, 3e-3, 5_483_032),
    # The last layer has a bias and no normalisation; two channels of the image are missing.
    "unet_256": Published(15, 19, 48.17 - 2.147 - 0.0755, 5e-3, 31_037_698, elsewhere=UP + 9 * 64 * 2 - 2),
    "espcn": Published(3, 3, 640 * 360 * (25 * 64 + 9 * 64 * 32 + 9 * 32 * 9) / 1e9, 1e-9),
    "vit_patch": Published(11, 11, 4.153, 1e-3),
}  # fmt: skip


def faults(layers: list[Layer], said: Published) -> set[str]:
    """In what these layers differ from what is said of the network."""
    found = {
        "layers": len(layers) == said.layers,
        "convolutions": sum(layer.count for layer in layers) == said.convolutions,
        "gmacs": abs(sum(layer.count * layer.problem.macs for layer in layers) / 1e9 - said.gmacs) <= said.within,
    }
    if said.parameters:
        weights = sum(layer.count * (_weights(layer.problem) + said.besides(layer)) for layer in layers)
        found["parameters"] = weights + said.elsewhere == said.parameters
    return {name for name, fine in found.items() if not fine}


def _weights(p: Conv2dProblem) -> int:
    return p.out_channels * p.in_channels // p.groups * p.kernel_size[0] * p.kernel_size[1]


def labels(layers: list[Layer]) -> Counter[str]:
    return Counter({layer.problem.replace(name="").label: layer.count for layer in layers})


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_what_is_published_of_it(name: str) -> None:
    assert faults(workloads.load(name), PUBLISHED[name]) == set()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_layer_too_few_too_many_or_of_another_size_would_be_seen(name: str) -> None:
    layers, said = workloads.load(name), PUBLISHED[name]
    for at, layer in enumerate(layers):
        before, after = layers[:at], layers[at + 1 :]
        assert {"layers", "convolutions"} <= faults(before + after, said)
        assert "convolutions" in faults([*before, replace(layer, count=layer.count + 1), *after], said)
        wider = layer.problem.replace(out_channels=layer.problem.out_channels + layer.problem.groups)
        assert not said.parameters or "parameters" in faults([*before, replace(layer, problem=wider), *after], said)
    smaller = [
        replace(layer, problem=layer.problem.replace(in_size=tuple(-(-s // 2) + 5 for s in layer.problem.in_size)))
        for layer in layers
    ]
    assert "gmacs" in faults(smaller, said)


@pytest.mark.parametrize("name", ["squeezenet", "densenet121", "inception_v1"])
def test_a_network_is_the_model_that_onnx_ships(name: str) -> None:
    model, layers = workloads.load(str(LIGHT / f"light_{name}.onnx")), workloads.load(name)
    assert labels(layers) == labels(model)
    assert labels(layers[1:]) != labels(model)


def test_alexnet_is_the_model_that_onnx_ships_at_227_pixels() -> None:
    def shapes(layers: list[Layer]) -> list[object]:
        problems = [layer.problem for layer in layers]
        return [(p.in_channels, p.out_channels, p.kernel_size, p.stride, p.groups) for p in problems]

    model = workloads.load(str(LIGHT / "light_bvlc_alexnet.onnx"))
    layers = workloads.load("alexnet")
    assert shapes(layers) == shapes(model)
    assert [layer.problem.out_size for layer in layers] == [(55, 55), (27, 27), (13, 13), (13, 13), (13, 13)]


@pytest.mark.parametrize(
    "name", ["resnext50_32x4d", "efficientnet_b0", "mobilenet_v3_large", "unet_256", "espcn", "vit_patch"]
)
def test_only_strides_make_an_image_smaller(name: str) -> None:
    for layer in workloads.load(name):
        p = layer.problem
        assert p.out_size == tuple(ceil(n / s) for n, s in zip(p.in_size, p.stride, strict=True)), layer.name


def test_a_network_file_opens_with_its_source_and_its_macs() -> None:
    for name in PUBLISHED:
        head = workloads.available()[name].read_text(encoding="utf-8").split("\nmb1")[0]
        assert all(line.startswith("# ") for line in head.splitlines()[:-1]), name
        assert "GMAC" in head, name
        assert any(word in head for word in ("arXiv:", "Krizhevsky")), name


def test_the_readme_lists_every_workload_with_its_numbers() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Workloads\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`(\S+)`", row[0])}
    assert names == {*workloads.available(), "random:N:SEED"}
    numbers = {row[0].strip("`"): row[2:] for row in rows if row[2].isdecimal()}
    assert set(PUBLISHED) < set(numbers)
    for name, shown in numbers.items():
        layers = workloads.load(name)
        macs = sum(layer.count * layer.problem.macs for layer in layers)
        counts = str(len(layers)), str(sum(layer.count for layer in layers))
        assert shown == [*counts, f"{macs / 1e9:.3g}"], name
