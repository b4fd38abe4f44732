"""The order in which the cost model puts the backends, and what `auto` makes of it, on a machine of fixed limits.

The layers are of different kinds. Limits: the order, not the seconds; a change that keeps all orders is not seen.
"""

from __future__ import annotations

import pytest

from conv_impls import Conv2dProblem
from conv_impls.backends import _by_tap, _dense, auto, numba_depthwise, numba_simd
from conv_impls.choice import cost
from conv_impls.choice.limits import Limits
from conv_impls.kernels import simd
from conv_impls.kernels.runtime import target

NAMES = {
    "S": "numba_simd", "D": "numba_depthwise", "2": "numba_winograd_f2", "4": "numba_winograd_f4",
    "5": "numba_winograd_f2_5x5", "F": "scipy_fft",
}  # fmt: skip
# Of one thread and of two, planned and eager: (1, planned), (1, eager), (2, planned), (2, eager). The cheapest first,
# of those that can do the problem.
ORDERS = {
    # Depthwise 7x7 (ConvNeXt), strided 7x7 on an image (ResNet), 3x3 on an image (VGG), 3x3 on many channels (ResNet).
    "g96mb1ic96ih56oc96oh56kh7ph3": ("DSF", "DSF", "DSF", "DSF"),
    "mb1ic3ih224oc64oh112kh7sh2ph3": ("S5F", "S5F", "S5F", "S5F"),
    "mb1ic3ih224oc64oh224kh3ph1": ("S42", "S42", "S42", "S42"),
    "mb1ic512ih7oc512oh7kh3ph1": ("2S4", "S24", "S24", "S24"),
    # 1x1 (ResNet).
    "mb1ic256ih56oc64oh56kh1": ("S", "S", "S", "S"),
    # A large kernel on few channels, groups of one channel with many outputs, a huge depthwise kernel, in float64.
    "mb4ic2ih64oc1oh64kh15ph7": ("FS", "SF", "SF", "SF"),
    "g8mb1ic8ih13oc512oh13kh7ph3": ("SDF", "SDF", "SDF", "SDF"),
    'g32mb1ic32ih128oc32oh114kh15ph0dt"float64"': ("DSF", "DSF", "DSF", "DSF"),
    # Groups of four channels, a batch, a batch with stride 3.
    "g8mb1ic32ih14oc16oh14kh5ph2": ("S5F", "S5F", "S5F", "S5F"),
    "mb4ic128ih112oc64oh108kh5ph0": ("5FS", "5FS", "5SF", "5SF"),
    "mb4ic16ih112oc8oh38kh9sh3ph4": ("SF", "SF", "SF", "SF"),
    # Strides, groups and a row by Winograd; few channels.
    "mb1ic128ih56oc128oh28kh3sh2ph1": ("42S", "42S", "42S", "42S"),
    "g2mb1ic96ih27oc256oh27kh5ph2": ("5SF", "5SF", "5SF", "5SF"),
    "g2mb1ic384ih13oc384oh13kh3ph1": ("42S", "2S4", "24S", "2S4"),
    "mb1ic512ih14oc512oh7kh3sh2ph1": ("S24", "S24", "S24", "S24"),
    "mb1ic8ih128oc8oh128kh3ph1": ("S42", "S42", "S42", "S42"),
    "mb1ic64ih128oc1oh128kh3ph1": ("S42", "S42", "S42", "S42"),
    "mb1ic128ih17iw17oc128oh17ow17kh1kw7ph0pw3": ("5S", "5S", "5S", "5S"),
    # A batch, groups and strides at once, and what an eager call decides.
    "g2mb4ic80ih8oc512oh4kh3sh2ph1": ("24S", "S24", "2S4", "S24"),
    "mb1ic96ih13oc208oh13kh3ph1": ("42S", "24S", "42S", "24S"),
    # Vectors along channels, where those along positions would be empty.
    "mb1ic192ih6oc384oh6kh3ph1": ("2S4", "S24", "2S4", "S24"),
    # One output an image.
    "mb64ic256ih7oc48oh1kh7ph0": ("S5F", "S5F", "S5F", "S5F"),
}
# The first of each order; with precision "strict", by direct summation.
PICKS = {
    "g96mb1ic96ih56oc96oh56kh7ph3": ("DDDD", "DDDD"),
    "mb1ic3ih224oc64oh112kh7sh2ph3": ("SSSS", "SSSS"),
    "mb1ic3ih224oc64oh224kh3ph1": ("SSSS", "SSSS"),
    "mb1ic512ih7oc512oh7kh3ph1": ("2SSS", "SSSS"),
    "mb1ic256ih56oc64oh56kh1": ("SSSS", "SSSS"),
    "mb4ic2ih64oc1oh64kh15ph7": ("FSSS", "SSSS"),
    "g8mb1ic8ih13oc512oh13kh7ph3": ("SSSS", "SSSS"),
    'g32mb1ic32ih128oc32oh114kh15ph0dt"float64"': ("DDDD", "DDDD"),
    "g8mb1ic32ih14oc16oh14kh5ph2": ("SSSS", "SSSS"),
    "mb4ic128ih112oc64oh108kh5ph0": ("5555", "SSSS"),
    "mb4ic16ih112oc8oh38kh9sh3ph4": ("SSSS", "SSSS"),
    "mb1ic128ih56oc128oh28kh3sh2ph1": ("4444", "SSSS"),
    "g2mb1ic96ih27oc256oh27kh5ph2": ("5555", "SSSS"),
    "g2mb1ic384ih13oc384oh13kh3ph1": ("4222", "SSSS"),
    "mb1ic512ih14oc512oh7kh3sh2ph1": ("SSSS", "SSSS"),
    "mb1ic8ih128oc8oh128kh3ph1": ("SSSS", "SSSS"),
    "mb1ic64ih128oc1oh128kh3ph1": ("SSSS", "SSSS"),
    "mb1ic128ih17iw17oc128oh17ow17kh1kw7ph0pw3": ("5555", "SSSS"),
    "g2mb4ic80ih8oc512oh4kh3sh2ph1": ("2S2S", "SSSS"),
    "mb1ic96ih13oc208oh13kh3ph1": ("4242", "SSSS"),
    "mb1ic192ih6oc384oh6kh3ph1": ("2S2S", "SSSS"),
    "mb64ic256ih7oc48oh1kh7ph0": ("SSSS", "SSSS"),
}
SETTINGS = [(threads, eager) for threads in (1, 2) for eager in (False, True)]


def fixed(threads: int, dtype: str) -> Limits:
    """100 GFLOP/s a thread in float32; two threads were once seen to start in 60 us, which is too long."""
    return Limits(
        flops_per_s=(100e9 if dtype == "float32" else 50e9) * threads, cache_bytes_per_s=200e9 * threads,
        l3_bytes_per_s=40e9 if threads == 1 else 60e9, memory_bytes_per_s=15e9,
        call_s=5e-6 if threads == 1 else 60e-6,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors of 32 bytes and 8 MiB of L3, whatever machine runs the tests."""
    monkeypatch.setattr(cost, "limits", fixed)
    monkeypatch.setattr(target, "caches", lambda: target.USUAL)
    # All are imported before: a module that is first imported inside a test would keep the replaced function.
    planned = (_by_tap, _dense, numba_simd, numba_depthwise)
    for module, name in ((simd, "lanes"), *((module, "vector_lanes") for module in planned)):
        monkeypatch.setattr(module, name, lambda itemsize: 32 // itemsize)


@pytest.mark.parametrize(("label", "orders"), ORDERS.items(), ids=ORDERS)
def test_the_cost_model_ranks_the_backends(label: str, orders: tuple[str, ...]) -> None:
    problem = Conv2dProblem.from_label(label)
    for (threads, eager), order in zip(SETTINGS, orders, strict=True):
        seconds = cost.estimates(problem, threads, eager)
        found = sorted(seconds, key=seconds.__getitem__)
        assert found == [NAMES[letter] for letter in order], (threads, eager)


@pytest.mark.parametrize(("label", "picks"), PICKS.items(), ids=PICKS)
def test_auto_picks_the_cheapest_that_can(label: str, picks: tuple[str, str]) -> None:
    problem = Conv2dProblem.from_label(label)
    for precision, letters in zip(("standard", "strict"), picks, strict=True):
        for (threads, eager), letter in zip(SETTINGS, letters, strict=True):
            assert auto.choose(problem, precision, threads, eager) == NAMES[letter], (precision, threads, eager)
            first, *rest = auto.candidates(problem, precision, threads, eager)
            order = ORDERS[label][SETTINGS.index((threads, eager))]
            ranks = [order.index(next(k for k, v in NAMES.items() if v == name)) for name in (first, *rest)]
            assert ranks == sorted(ranks)


def test_all_backends_are_weighed_by_one_set_of_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = set()

    def limits(threads: int, dtype: str) -> Limits:
        asked.add((threads, dtype))
        return fixed(threads, dtype)

    monkeypatch.setattr(cost, "limits", limits)
    found = cost.estimates(Conv2dProblem.from_label("g96mb1ic96ih56oc96oh56kh7ph3"), 2, False)
    assert found.keys() == {"numba_simd", "numba_depthwise", "scipy_fft"}
    assert asked == {(2, "float32")}


def test_weights_that_a_small_l3_does_not_hold_stream_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    # 36 points of 128 x 256 weights: 4.5 MiB, and more time to read them than to multiply.
    problem = Conv2dProblem(1, 128, (6, 6), 256, (3, 3))
    held = cost.estimates(problem, 1, False)["numba_winograd_f4"]
    monkeypatch.setattr(target, "caches", lambda: target.USUAL._replace(l3=4 * 2**20))
    assert cost.estimates(problem, 1, False)["numba_winograd_f4"] > 1.5 * held


def test_fft_takes_tiles_where_the_image_is_much_larger_than_the_kernel() -> None:
    # The whole padded image of 78 x 78 for a kernel of 15; tiles of six times the kernel of 5 for an image of 112.
    sizes = {"mb4ic2ih64oc1oh64kh15ph7": (80, 80), "mb4ic128ih112oc64oh108kh5ph0": (32, 32)}
    assert {label: cost.fft_size(Conv2dProblem.from_label(label)) for label in sizes} == sizes
