"""Calls on two threads at awkward moments: right, or on one thread, never an abort or a hang.

In signal handlers, forked children, other ways to start a process, a user's own parallel loops, at the interpreter's
end, and interrupted a thousand times. Each in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from harness import run_python

from conv_impls.kernels.runtime.launch import LAYERS

START = """
import os, signal, sys, threading, time
import numpy as np
from conv_impls import Conv2dProblem, conv2d, plan
from conv_impls.kernels.runtime import job
# Jobs here are so small that they would be the caller's alone.
job.ALONE_NS = 0
problem = Conv2dProblem.from_label("ic8ih32oc16oh32kh3ph1")
x, weight = np.ones(problem.input_shape, "f4"), np.ones(problem.weight_shape, "f4")
ready = plan(problem, weight, backend="numba_simd", threads=2)
def right():
    y = ready(x)
    return bool(y[0, 0, 9, 9] == 72 and y[0, 15, 0, 0] == 32 and y[0, 7, 31, 9] == 48)
assert right()
"""
MOMENTS = {
    "in a signal handler, in the middle of a call": """
seen = []
def handler(*_):
    seen.append(right())
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
signal.signal(signal.SIGALRM, handler)
handler()
while len(seen) < 200:
    assert right()
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert all(seen)
""",
    "in a signal handler, before there are workers": """
from conv_impls.kernels.runtime import launch, team
start = team.start_thread
for _ in range(20):
    launch._team = team.Team()
    def interrupted(*given):
        os.kill(os.getpid(), signal.SIGALRM)
        return start(*given)
    team.start_thread, seen = interrupted, []
    def handler(*_):
        team.start_thread = start
        seen.append(right())
    signal.signal(signal.SIGALRM, handler)
    # A plan for one core needs none.
    assert right() and seen == [True] * (ready.threads > 1)
""",
    "while the process changes its user or group": """
os.setgid(os.getgid())
os.setuid(os.getuid())
assert right()
""",
    "in children that are forked while jobs run": """
stop = threading.Event()
def busy():
    while not stop.is_set():
        assert right()
others = [threading.Thread(target=busy, daemon=True) for _ in range(2)]
[other.start() for other in others]
for _ in range(12):
    child = os.fork()
    if child == 0:
        os._exit(0 if right() and ready.threads == 1 and conv2d(x, weight, threads=2)[0, 0, 0, 0] == 72 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert right()
stop.set()
""",
    "in processes that are spawned, or forked by a server": """
import multiprocessing
for method in ("spawn", "forkserver"):
    with multiprocessing.get_context(method).Pool(2) as pool:
        for y in pool.starmap(conv2d, [(x, weight)] * 8):
            assert y[0, 0, 9, 9] == 72
""",
    "in a daemon thread while the interpreter ends": """
def busy():
    while True:
        right()
for _ in range(3):
    threading.Thread(target=busy, daemon=True).start()
time.sleep(0.05)
""",
    "at exit, with no worker yet": """
import atexit
atexit.register(lambda: print(right()))
from conv_impls.kernels.runtime import launch, team
launch._team = team.Team()
""",
    "interrupted a thousand times": """
import numba
from conv_impls.kernels.runtime import launch
# On more threads than this, so that Numba's path has something to restore.
numba.set_num_threads(1)
main, done, armed, caught = threading.main_thread().ident, threading.Event(), False, 0
class Interrupted(Exception): pass
def handler(*_):
    # Nothing is raised outside of the calls.
    global armed
    if armed:
        armed = False
        raise Interrupted
signal.signal(signal.SIGINT, handler)
def interrupt():
    pause = np.random.default_rng(0)
    while not done.is_set():
        signal.pthread_kill(main, signal.SIGINT)
        time.sleep(float(pause.uniform(0, 4e-4)))
other = threading.Thread(target=interrupt)
other.start()
while caught < 1000:
    try:
        armed = True
        while True:
            ready(x)
    except Interrupted:
        caught += 1
done.set()
other.join()
assert right() and numba.get_num_threads() == 1
if launch.layer() == "team":
    assert launch._team._started <= 1 and sum(map(len, launch._team._blocks.values())) < 10
""",
}
PRANGE = """
import numba
@numba.njit(parallel=True)
def loop(found):
    for i in numba.prange(found.size):
        with numba.objmode(ok="boolean"):
            ok = right()
        found[i] = ok
found = np.zeros(400, np.bool_)
for _ in range(3):
    loop(found)
    assert found.all()
    found[:] = False
print(numba.threading_layer())
"""


# Numba's threads need no start of ours.
TEAMS_ALONE = {"in a signal handler, before there are workers"}
EACH = [(moment, layer) for moment in MOMENTS for layer in LAYERS[: 1 + (moment not in TEAMS_ALONE)]]


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What a process said, without what it says where the disk has no kernels yet."""
    return [line for line in done.stderr.splitlines() if not line.startswith("compiling kernels")]


@pytest.mark.parametrize(("moment", "layer"), EACH)
def test_moment(moment: str, layer: str) -> None:
    done = run_python(START + MOMENTS[moment], CONV_IMPLS_THREADING_LAYER=layer, PYTHONWARNINGS="ignore")
    assert (done.returncode, said(done)) == (0, [])


# Numba's workqueue ends a process that enters it twice, also by our kernels where they are told to run there.
@pytest.mark.parametrize(
    ("layer", "numbas"),
    [(layer, one) for one in ("omp", "tbb", "workqueue") for layer in LAYERS[: 1 + (one != "workqueue")]],
)
def test_in_a_parallel_loop_of_the_user(layer: str, numbas: str) -> None:
    variables = {"CONV_IMPLS_THREADING_LAYER": layer, "NUMBA_THREADING_LAYER": numbas}
    # Where pip puts the libraries of TBB.
    done = run_python(START + PRANGE, LD_LIBRARY_PATH=str(Path(sys.prefix, "lib")), **variables)
    assert (done.returncode, done.stdout.strip(), said(done)) == (0, numbas, [])


def test_in_a_signal_handler_on_numbas_work_queue() -> None:
    variables = {"CONV_IMPLS_THREADING_LAYER": "numba", "NUMBA_THREADING_LAYER": "workqueue"}
    done = run_python(START + MOMENTS["in a signal handler, in the middle of a call"], **variables)
    assert (done.returncode, said(done)) == (0, [])
