"""Shared fixtures, the order of the tests, and the options that want those that need torch or a browser."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import effort as efforts
import pytest

# Fixtures.
from believed import folder as folder
from believed import measurements as measurements
from checkout import repo as repo
from checkout import template as template
from commands import bench as bench
from effort import effort as effort
from inprocess import machine as machine
from misbehaving import plugin as plugin
from misbehaving import workers as workers
from scripted import go as go

from conv_impls import registry

# A shell that runs the tests in the background has them ignore Ctrl-C, and every process they start as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
# Tests that need torch.
PARITY = {"test_torch_parity.py", "test_examples_autograd.py"}
# --doctest-modules imports every file it collects, and importing a plug-in registers its backends for all tests.
collect_ignore_glob = ["[!t]*.py", "t[!e]*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-torch", action="store_true", help="fail where torch is missing, as CI does")
    parser.addoption("--require-chromium", action="store_true", help="fail where chromium is missing, as CI does")
    # A plug-in would also reseed random and NumPy before each test; here only the order is wanted.
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run modules, and tests in each, in a random order")
    efforts.add_options(parser)


def left_out(config: pytest.Config) -> bool:
    return find_spec("torch") is None and not config.getoption("--require-torch")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the parity tests out where there is no torch, rather than skip them one by one."""
    return True if collection_path.name in PARITY and left_out(config) else None


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = config.getoption("--shuffle")
    return [
        *(["torch is not installed: its parity tests and one notebook are left out"] if left_out(config) else []),
        *([] if seed is None else [f"random order: --shuffle {seed} gives it again"]),
    ]


# First, so that pytest then puts tests together that share a fixture of the module with a parameter.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle the modules, and the tests within each, so that what a module's tests share is still made once."""
    seed = config.getoption("--shuffle")
    if seed is not None:
        chance = random.Random(seed)
        place = {path: chance.random() for path in dict.fromkeys(item.path for item in items)}
        chance.shuffle(items)
        items.sort(key=lambda item: place[item.path])


@pytest.fixture(scope="session", autouse=True)
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes what the package remembers for the user who runs it; child processes inherit this.

    They also find `bench` from any folder: an installation has it only by its other name.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        patch.setenv("CONV_IMPLS_CACHE_DIR", str(tmp_path_factory.mktemp("user")))
        yield


@pytest.fixture
def smallest_jobs_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs so small that they would be the caller's alone go to the team as well."""
    monkeypatch.setattr("conv_impls.kernels.runtime.job.ALONE_NS", 0)


@pytest.fixture
def registered() -> Iterator[dict[str, registry.Backend]]:
    """The registry's table, put back as it was afterwards, with the backends imported in the meantime."""
    before = dict(registry._registered)
    yield registry._registered
    imported = {name: entry for name, entry in registry._registered.items() if name in registry.sources()}
    registry._registered.clear()
    registry._registered.update(imported | before)
    registry._selected.cache_clear()
