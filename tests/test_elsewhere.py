"""What runs on systems without fork, signals of POSIX and fcntl, such as Windows: all but timing and checking."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "runs" / "bench"
# Modules and names that Windows does not have. Other modules of Python take them from `os` when they are imported, so
# these modules are imported first.
HIDE = """
import concurrent.futures, importlib.abc, multiprocessing, os, runpy, signal, subprocess, sys, tempfile
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "termios", "pty"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
for name in ("fcntl", "resource", "termios", "pty"):
    sys.modules.pop(name, None)
for name in ("fork", "killpg", "setpgid", "getpgid", "sysconf", "mkfifo", "register_at_fork", "getloadavg", "waitid",
             "O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK", "WNOWAIT", "sched_getaffinity", "sched_setaffinity"):
    delattr(os, name)
for name in ("SIGKILL", "SIGSTOP", "SIGCONT", "SIGALRM", "setitimer", "pthread_kill"):
    delattr(signal, name)
"""
PROGRAM = f"{HIDE}\nsys.argv = ['bench', *sys.argv[1:]]\nrunpy.run_module('bench', run_name='__main__')"
LIBRARY = f"""{HIDE}
import numpy as np
from conv_impls import backends, conv2d, get_backend
x, weight = np.ones((1, 4, 6, 6), np.float32), np.ones((4, 4, 3, 3), np.float32)
for name in ("auto", "numba_direct", "numba_simd", "numba_winograd_f4", "numpy_strided", "scipy_fft"):
    y = conv2d(x, weight, padding=1, backend=name, threads=2)
    assert np.allclose(y[..., 1:-1, 1:-1], 36, rtol=1e-4), name
print("right")
"""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def test_the_library_computes() -> None:
    done = python(LIBRARY)
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


def test_stored_runs_are_listed_reported_compared_exported_and_imported(tmp_path: Path) -> None:
    for command, words in {
        ("--version",): "conv-impls ", ("list",): "numba_simd",
        ("report", REFERENCE, "--out", tmp_path / "report"): "page: ",
        ("compare", REFERENCE, REFERENCE): f"{REFERENCE} against {REFERENCE}",
        ("export", REFERENCE, "--out", tmp_path / "run.json"): "cases in ",
        ("import", tmp_path / "run.json", "--out", tmp_path / "run"): "cases in ",
    }.items():  # fmt: skip
        done = python(PROGRAM, *command)
        assert (done.returncode, words in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("command", ["run", "check"])
def test_what_needs_processes_is_refused_in_one_line(command: str) -> None:
    done = python(PROGRAM, command, "--workload", "smoke", "--backends", "numpy_strided")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: timing and checking backends need fork and SIGSTOP (Linux; ")
    assert done.stderr.count("\n") == 1


def test_the_tests_of_all_backends_can_be_collected() -> None:
    code = f"{HIDE}\nimport pytest\nsys.exit(pytest.main(sys.argv[1:]))"
    done = python(code, "-q", "-p", "no:cacheprovider", "-k", "numpy_strided", "tests/test_conformance.py")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_module_that_is_hidden_cannot_be_imported() -> None:
    for code in ("import fcntl", "os.fork()", "signal.SIGKILL"):
        assert python(f"{HIDE}\n{code}").returncode == 1
