"""NUMBA_DISABLE_JIT, as debuggers and coverage set it: `auto` works, what needs a compiler says so, commands go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import run_python

from conv_impls import Conv2dProblem, backends, get_backend
from conv_impls.backends import auto
from conv_impls.choice import tuning
from conv_impls.kernels.runtime import target

ROOT = Path(__file__).parent.parent
CODE = """
import json
import numpy as np
from conv_impls import Conv2dProblem, UnsupportedError, backends, conv2d, conv2d_weight, get_backend, plan

rng = np.random.default_rng(0)
found = {}
for label in ("mb2ic4ih9oc6oh9kh3ph1", "g4mb1ic4ih9oc4oh5kh3sh2ph1", "mb1ic2ih20oc3oh20kh7ph3"):
    problem = Conv2dProblem.from_label(label)
    x, w = (rng.standard_normal(shape).astype("float32") for shape in (problem.input_shape, problem.weight_shape))
    how = {"stride": problem.stride, "padding": problem.padding, "groups": problem.groups}
    want = conv2d(x, w, backend="python_loops", **how)
    for precision in ("standard", "strict"):
        ready = plan(problem, w, precision=precision, tune=precision == "strict")
        assert np.allclose(ready(x), want, atol=1e-5) and np.allclose(conv2d(x, w, **how), want, atol=1e-5)
        assert not get_backend(ready.backend).compiled, ready.backend
    for name in backends():
        try:
            conv2d(x, w, backend=name, **how)
        except UnsupportedError as error:
            found[name] = str(error)
print(json.dumps(found))
"""


def test_auto_takes_the_fastest_that_needs_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "compiles", lambda: False)
    small = Conv2dProblem.from_label("mb1ic16ih28oc16oh28kh3ph1")
    assert auto.candidates(small, "standard", 1, False)[0] == "numpy_strided"
    # Its patches would be 121 times the image.
    large = Conv2dProblem.from_label("mb1ic16ih1000oc1oh1000kh11ph5")
    assert auto.candidates(large, "standard", 1, False)[0] == "scipy_fft"
    assert auto.candidates(large, "strict", 1, False) == ["numpy_im2col"]


def test_what_wins_without_a_compiler_is_not_taken_for_a_winner_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for answer in (True, False):
        tuning._key.cache_clear()
        monkeypatch.setattr(target, "compiles", lambda answer=answer: answer)
        keys.add(tuning._key(Conv2dProblem.from_label("mb1ic1ih4oc1oh4kh1ph0"), "standard", 1))
    tuning._key.cache_clear()
    assert len(keys) == 2


def test_auto_works_and_compiled_backends_say_why_they_do_not() -> None:
    done = run_python(CODE, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    compiled = {name for name in backends() if get_backend(name).compiled}
    assert set(refused) == compiled
    assert {name for name in backends() if name.startswith("numba_")} <= compiled
    assert all("which NUMBA_DISABLE_JIT disables; unset it" in text for text in refused.values())


@pytest.mark.parametrize("value", ["", "0"])
def test_a_variable_that_disables_nothing_refuses_nothing(value: str) -> None:
    code = "from conv_impls.kernels.runtime import target; first = target.compiles(); import numba; print(first, {})"
    done = run_python(code.format("target.compiles()"), NUMBA_DISABLE_JIT=value)
    assert done.stdout.split() == ["True", "True"], done.stderr


@pytest.mark.parametrize(
    "command",
    ["conv_impls warmup --workload smoke", "conv_impls tune --workload smoke", "bench list"],
)  # fmt: skip
def test_commands_work(command: str) -> None:
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["bench machine", "bench run --workload smoke --backends auto --out"])
def test_commands_that_measure_say_what_they_need(command: str, tmp_path: Path) -> None:
    words = [*command.split(), str(tmp_path / "run")] if command.endswith("--out") else command.split()
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert "NUMBA_DISABLE_JIT is set; unset it" in done.stderr
    assert "Traceback" not in done.stderr
