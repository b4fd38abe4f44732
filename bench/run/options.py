"""Parse command-line options into layers, backends, thread counts and cases. Errors are one line."""

from __future__ import annotations

import difflib
import io
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from conv_impls import backends, workloads
from conv_impls.choice.cost import MODELLED
from conv_impls.errors import UnknownBackendError
from conv_impls.kernels.runtime.target import size_bytes
from conv_impls.text import visible
from conv_impls.validation import DTYPES
from conv_impls.workloads import Layer, Workload

from ..machine.cpu import cores
from ..peers import OWN, PEERS, missing
from ..program import COMMAND, IN_CLONE, LACKING, ROOT, SETUP_PEERS
from ..store.coverage import Taken
from ..store.records import CACHES, DIRECTIONS, Case, split_version
from . import plugin
from .isa import ISAS, UNHELD, isa_variables
from .worker import MACHINE, PLUGIN

Word = TypeVar("Word", bound=str)
# In a clone: next to the sources; otherwise in the current folder.
RESULTS = (ROOT if IN_CLONE else Path.cwd()) / "results"
RUNS = RESULTS / "runs"
# Caches are flooded with this many times the last level's size; if it is unknown, with that of a large desktop.
FLOOD, LAST_LEVEL_BYTES = 2, 64 * 2**20
# Reason why convolutions of a model are left out, in the wording of `conv_impls.workloads.Workload`.
NOT_NAMED = "do not match --layers"

HELP = {
    "workload": "Names of workloads (see `list`), files (.txt, .csv, .onnx), random:N:SEED or one benchdnn label, "
    "separated by commas.",
    "backends": "Names separated by commas, or a set: all (of this package), fast (candidates of auto), peers "
    "(installed libraries). NAME@REV or NAME@FOLDER is the backend of a git revision or folder; the exit code is 1 if "
    "the first of several versions is slower.",
    "threads": "Thread counts separated by commas. Default: all cores.",
    "direction": "fwd, bwd_d (gradient of the image) or bwd_w (gradient of the weights), separated by commas.",
    "cache": "warm, cold (all data comes from memory) or weights (only the weights do), separated by commas.",
    "batch": "Batch sizes for every layer, separated by commas. Default: that of the workload.",
    "size": "Sizes that a model's inputs leave open: 1,3,224,224 or name=1,3,224,224; batch N is that of --batch.",
    "dtype": "float32, float64, or both. Default: that of the workload.",
    "layers": "Only layers whose name contains this text.",
    "repetitions": "Repetitions of all layers, each in new processes.",
    "seconds": "Seconds of timing per case and repetition.",
    "timeout": "Maximum seconds of a call. Slower cases are over_budget; hanging processes are killed.",
    "budget": "Maximum seconds of the run. --resume measures the remaining cases; spare time goes to weak ones.",
    "isa": "avx2 limits the backends to this instruction set. Default: all that the CPU has.",
    "kernels": "kept uses compiled kernels from disk; fresh compiles all again and so measures the cost.",
    "plugin": "Python module or file that registers your own backends; it is imported first.",
    "seed": "Seed of the data and of the order of measurement.",
    "out": "Run folder. Default: results/runs/<date-time>.",
    "resume": "Continue the run in this folder with its options.",
}


class UsageError(Exception):
    """A wrong option; shown as one line, exit code 2."""


@dataclass(frozen=True)
class Options:
    """The command-line options, as texts and numbers; the defaults are those of `python -m bench run`."""

    workload: str = "sizes,resnet50,vgg16,mobilenet_v2,convnext_tiny"
    backends: str = "all"
    threads: str = ""
    direction: str = "fwd"
    cache: str = "warm"
    batch: str = ""
    size: str = ""
    dtype: str = ""
    layers: str = ""
    repetitions: int = 1
    seconds: float = 0.06
    timeout: float = 0.6
    budget: float = 280.0
    isa: str = ""
    kernels: str = "kept"
    plugin: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "plugin", plugin.recorded(self.plugin))
        object.__setattr__(self, "kernels", choice(self.kernels, "--kernels", ("kept", "fresh")))
        if self.isa:
            object.__setattr__(self, "isa", choice(self.isa, "--isa", tuple(ISAS)))

    def command(self) -> str:
        """The command with the same options."""
        words = [f"--{f.name} {_quoted(getattr(self, f.name))}" for f in fields(self) if getattr(self, f.name) != ""]
        return f"{COMMAND} run " + " ".join(words)

    def further(self) -> str:
        """Options that the command to repeat one case also needs: those that change the measurement."""
        names = "seconds", "timeout", "isa", "kernels", "plugin", "seed"
        changed = [name for name in names if getattr(self, name) != getattr(Options, name)]
        return " ".join(f"--{name} {_quoted(getattr(self, name))}" for name in changed)

    def variables(self) -> dict[str, str]:
        """Environment variables of every backend's process."""
        path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH", "")]))
        return isa_variables(self.isa) | ({PLUGIN: self.plugin, "PYTHONPATH": path} if self.plugin else {})

    def cases(self) -> list[Case]:
        """Every case, in the order of measurement."""
        return self.asked()[0]

    def asked(self) -> tuple[list[Case], dict[str, Taken]]:
        """Every case, in the order of measurement, and the convolutions of each model that are left out."""
        from .driver import make_cases

        if LACKING:
            raise UsageError(LACKING)
        for name in ("repetitions", "seconds", "timeout", "budget"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"--{name}: expected a number above 0, got {value:g}")
        batches: list[int | None] = [*_numbers(self.batch, "--batch")] or [None]
        dtypes: list[str | None] = [*choices(self.dtype, "--dtype", DTYPES)] if self.dtype else [None]
        read = [found for b in batches for d in dtypes for found in read_workloads(self.workload, b, d, self.size)]
        layers = [layer for found in read for layer in found.layers if self.layers in layer.name]
        if not layers:
            raise UsageError(f"--layers: expected part of a layer's name, got {self.layers!r}")
        names = read_backends(self.backends, self.plugin)
        if self.isa:
            names = [name for name in names if name not in UNHELD]
            if not names:
                raise UsageError(f"--isa: none of these backends can be limited to {self.isa}: {self.backends}")
        cases = make_cases(
            layers, names, read_threads(self.threads), self.repetitions,
            choices(self.direction, "--direction", DIRECTIONS), choices(self.cache, "--cache", CACHES),
        )  # fmt: skip
        # Each batch and dtype reads the same models again; count them once.
        return cases, taken(read[: len(read) // (len(batches) * len(dtypes))], self.layers)


def taken(read: list[Workload], part: str = "") -> dict[str, Taken]:
    """For models with convolutions left out: how many are taken (``part`` is in their layer's name)."""
    found: dict[str, Taken] = {}
    for model in filter(lambda workload: workload.is_model, read):
        before = found.setdefault(model.name, {"taken": 0, "left_out": {}})
        named = sum(layer.count for layer in model.layers if part in layer.name)
        others = sum(layer.count for layer in model.layers) - named
        before["taken"] += named
        reasons = Counter(before["left_out"]) + Counter(model.left_out) + Counter({NOT_NAMED: others})
        before["left_out"] = dict(reasons)
    return {name: model for name, model in found.items() if model["left_out"] and model["taken"]}


def read_layers(text: str, batch: int | None = None, dtype: str | None = None) -> list[Layer]:
    """Layers of every named workload; two layers of one name in one workload are an error."""
    return [layer for found in read_workloads(text, batch, dtype) for layer in found.layers]


def read_workloads(text: str, batch: int | None = None, dtype: str | None = None, size: str = "") -> list[Workload]:
    """Every named workload, its models with ``size``; two layers of one name in one workload are an error."""
    parts = split(text, "--workload")
    if size and not any(map(workloads.is_model, parts)):
        raise UsageError(f"--size: expected an ONNX model in --workload, whose inputs leave sizes open, got {text!r}")
    found = [workloads.read(name, batch, dtype, size if workloads.is_model(name) else "") for name in parts]
    names = [(layer.workload, layer.name) for workload in found for layer in workload.layers]
    for workload, name in names:
        if names.count((workload, name)) > 1:
            raise UsageError(
                f"--workload: layer {name!r} of {workload!r} is used twice; give the layers different names"
            )
    return found


def read_backends(text: str, extra: str = "") -> list[str]:
    """Names of existing backends. "all": the package's; "fast": those `auto` chooses from; "peers": those installed."""
    if extra:
        _import_plugin(extra)
    own = backends()
    if MACHINE in own:
        raise UsageError(
            f"--backends: {MACHINE!r} is reserved for the machine's peak; register the backend under another name"
        )
    groups = {
        "all": list(own),
        "fast": [*MODELLED, "auto", *OWN],
        "peers": [name for name in PEERS if missing(name) is None],
    }
    names: list[str] = []
    for name in split(text, "--backends"):
        if name == "peers" and not groups["peers"]:
            raise UsageError(f"--backends: no peer is installed; run: {SETUP_PEERS}")
        names += groups.get(name, [name])
    known = [*own, *OWN, *PEERS]
    for name in names:
        if name not in known and "@" in name:
            _check_version(name, groups)
        elif name not in known:
            close = difflib.get_close_matches(name, [*known, *groups], n=1, cutoff=0.0)
            listed = f"Known: {', '.join([*groups, *known])}"
            raise UnknownBackendError(f"no backend {name!r}; did you mean {close[0]!r}? {listed}")
    return list(dict.fromkeys(names))


def _import_plugin(text: str) -> None:
    # As for a script, modules are also searched in the current folder.
    sys.path.insert(0, "")
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            plugin.check(text)
            plugin.load(text)
    # User code may raise any exception.
    except (Exception, SystemExit) as error:
        why = " ".join(str(error).split())
        raise UsageError(f"--plugin: {text!r} cannot be imported: {type(error).__name__}: {why}") from None
    finally:
        sys.stderr.write(visible(printed.getvalue()))


def _check_version(text: str, groups: Iterable[str]) -> None:
    """Refuse names that cannot have a version; `bench.run.versions` checks the rest."""
    name, version = split_version(text)
    if not (name and version):
        raise UsageError(f"--backends: expected NAME@REV or NAME@FOLDER, such as auto@v0.3.0, got {text!r}")
    if name in groups:
        raise UsageError(f"--backends: {text!r}: a set has no version; add it to each backend, such as auto@{version}")
    if name in PEERS:
        raise UsageError(
            f"--backends: {text!r}: only backends of this package have versions, but {name} is another library"
        )


def read_threads(text: str) -> list[int]:
    """Thread counts, at most the cores of this machine; all cores for an empty text."""
    if not text:
        return [cores()]
    values = split(text, "--threads")
    if not all(value.isdecimal() and 1 <= int(value) <= cores() for value in values):
        raise UsageError(f"--threads: expected counts from 1 to {cores()} separated by commas, got {text!r}")
    return [int(value) for value in values]


def choices(text: str, option: str, known: tuple[Word, ...]) -> list[Word]:
    """Words that must be among the known ones."""
    values = split(text, option)
    if not set(values) <= set(known):
        raise UsageError(f"{option}: expected {', '.join(known)}, or several separated by commas, got {text!r}")
    typed: dict[str, Word] = {word: word for word in known}
    return [typed[value] for value in values]


def choice(text: str, option: str, known: tuple[str, ...]) -> str:
    """One word that must be among the known ones."""
    if (word := text.strip()) not in known:
        raise UsageError(f"{option}: expected {', '.join(known)} (one word), got {text!r}")
    return word


def split(text: str, option: str) -> list[str]:
    """The parts between commas, without duplicates, at least one. A comma inside double quotes does not split.

    Examples
    --------
    >>> split('ic3ih8oc4kh3n"a,b", vgg16', "--workload")
    ['ic3ih8oc4kh3n"a,b"', 'vgg16']
    """
    parts = re.findall(r'(?:"[^"]*"|[^,])+', text)
    values = list(dict.fromkeys(part.strip() for part in parts if part.strip()))
    if not values:
        raise UsageError(f"{option}: expected one or more names, got {text!r}")
    return values


def last_level_bytes(caches: dict[str, str]) -> int:
    """Size of the largest cache, from texts such as "32768K"."""
    return max(map(size_bytes, caches.values()), default=LAST_LEVEL_BYTES)


def _numbers(text: str, option: str) -> list[int]:
    if not text:
        return []
    values = split(text, option)
    if not all(value.isdecimal() and int(value) >= 1 for value in values):
        raise UsageError(f"{option}: expected integers >= 1 separated by commas, got {text!r}")
    return [int(value) for value in values]


def _quoted(value: object) -> str:
    import shlex

    return shlex.quote(f"{value:g}" if isinstance(value, float) else str(value))
