"""``python -m conv_impls trace|tune|warmup|machine``: trace the sizes of a network, prepare this machine for conv2d."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TextIO, TypeVar

import numpy as np

from conv_impls import warmup
from conv_impls._version import __version__
from conv_impls.api import thread_count
from conv_impls.choice import limits, stored, tuning, userdir
from conv_impls.errors import ConvError
from conv_impls.planned import plan
from conv_impls.problem import Conv2dProblem
from conv_impls.text import visible
from conv_impls.trace import GRAMMAR, trace
from conv_impls.validation import PRECISIONS, Array
from conv_impls.workloads import Layer, WorkloadError, available, load

ABOUT = "Trace the sizes of a network; prepare this machine for conv2d."
TRACE = f"""examples:
  python -m conv_impls trace 1x128x128 "conv 8 k3 s1 p1; conv 16 k3 s2 p1; conv 16 k3 p1; conv 32 k3 s2 p1"
  python -m conv_impls trace 3x224x224 "conv 32 k3 s2 p1; conv 32 k3 p1 dw; conv 16 k1; maxpool k2"

layers: {GRAMMAR}"""
LAYERS = f"""examples:
  python -m conv_impls tune --workload resnet50
  python -m conv_impls warmup --workload mobilenet_v2 --threads 1,2
  python -m conv_impls tune --workload model.onnx --size 1,3,224,224
  python -m conv_impls tune --workload 'mb1ic64ih56oc64oh56kh3ph1n"mine"' --precision strict

workloads: random:N:SEED (N drawn layers), a file of layers, an ONNX model, one benchdnn label, or a name:
{textwrap.fill(", ".join(available()), 100, initial_indent="  ", subsequent_indent="  ")}"""
MACHINE = """examples:
  python -m conv_impls machine                 show the limits that 'auto' uses, and their dates
  python -m conv_impls machine --renew         measure limits and winners of tuning again
  python -m conv_impls machine --renew --threads 1,2"""
EXIT = "exit codes: 0 fine, 2 a wrong option or file, 130 interrupted"
PRECISION = "strict: 'auto' uses direct summation only; standard (default): Winograd and FFT, too"
BAR = 24
Item = TypeVar("Item")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        # One line each, without the place in the code.
        warnings.showwarning = lambda message, *where, **more: _say(f"warning: {message}", sys.stderr)
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    try:
        if options.command == "trace":
            _say(str(trace(options.input, options.layers)))
        elif options.command == "machine":
            _machine(options.renew, options.threads)
        else:
            work = _tune if options.command == "tune" else _warm_up
            work(load(options.workload, size=options.size), options.threads, options.precision)
    except (ConvError, WorkloadError) as error:
        options.error(visible(str(error)))
    except KeyboardInterrupt:
        print("\ninterrupted; finished work is stored", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    every = f"{TRACE}\n\n{LAYERS}\n\n{MACHINE}\n\n{_first('machine', MACHINE)}\n{EXIT}"
    parser = argparse.ArgumentParser("python -m conv_impls", description=ABOUT, epilog=every, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"conv-impls {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, examples: str) -> argparse.ArgumentParser:
        own = f"{examples}\n\n{_first(name, examples)}\n{EXIT}"
        added = commands.add_parser(name, help=text, description=text, epilog=own, formatter_class=form)
        added.set_defaults(error=added.error)
        return added

    tracer = command("trace", "print sizes, receptive fields, parameters and MACs of a stack of layers", TRACE)
    tracer.add_argument("input", type=_sizes, help="size of the input, CxHxW, for example 3x224x224")
    tracer.add_argument("layers", help="layers separated by ';'")
    tune = "measure the backends on each layer, and store the fastest for 'auto'"
    for each in (command("tune", tune, LAYERS), command("warmup", "compile the kernels that the layers need", LAYERS)):
        each.add_argument("--workload", required=True, help="a workload's name, a file, or a label")
        each.add_argument(
            "--size", default="", help="sizes that the model's inputs leave open: 1,3,224,224 or name=1,3,224,224"
        )
        each.add_argument(
            "--threads", type=_counts, default=[None], help="thread counts, for example 1,2 (default: all cores)"
        )
        each.add_argument("--precision", choices=PRECISIONS, default="standard", help=PRECISION)
    machine = command("machine", "show the stored limits and winners of this machine, or measure them again", MACHINE)
    machine.add_argument(
        "--renew", action="store_true", help="measure limits and winners again, and replace the old ones"
    )
    machine.add_argument(
        "--threads",
        type=_counts,
        default=[],
        help="thread counts whose limits are measured (default: 1, all cores, and the stored ones)",
    )
    return parser


def _first(name: str, examples: str) -> str:
    """The line that names the first example of a command."""
    command = f"python -m conv_impls {name}"
    first = next(line for line in examples.splitlines() if command in line)
    # Some examples have a comment, after two or more spaces.
    return f"try first: {first.strip().partition('   ')[0]}"


def _sizes(text: str) -> list[int]:
    sizes = text.split("x")
    if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
        raise argparse.ArgumentTypeError(f"expected CxHxW such as 3x224x224, got {text!r}")
    return [int(size) for size in sizes]


def _counts(text: str) -> list[int]:
    counts = text.split(",")
    if not all(count.isdecimal() and int(count) for count in counts):
        raise argparse.ArgumentTypeError(f"expected thread counts such as 1,2, got {text!r}")
    return [int(count) for count in counts]


def _tune(layers: list[Layer], threads: list[int | None], precision: str) -> None:
    """Measure every layer, equal ones once; print the winners."""
    userdir.check_writable("tune")
    won: dict[tuple[Conv2dProblem, int | None], str] = {}
    for _, (layer, count) in _progress([(layer.name, (layer, count)) for count in threads for layer in layers]):
        # Problems that differ in their names alone are equal.
        if (layer.problem, count) not in won:
            ready = plan(layer.problem, _weight(layer.problem), precision=precision, threads=count, tune=True)
            won[layer.problem, count] = f"{ready.threads} threads  {ready.backend}"
        _say(f"{layer.name:24} {won[layer.problem, count]}")


def _warm_up(layers: list[Layer], threads: list[int | None], precision: str) -> None:
    """Plan all layers and call one of each kind, on all cores."""
    start = time.perf_counter()
    kinds = list(warmup.kinds(layers, threads, precision).items())
    with warmup.pool(len(kinds)) as pool:
        try:
            for _ in zip(_progress(kinds), pool.map(warmup.make_ready, [kind for _, kind in kinds]), strict=True):
                pass
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        except BrokenProcessPool:
            raise ConvError(
                "warmup: a process that compiles was killed, perhaps because memory ran out; finished kernels are "
                "stored, so run it again, or with fewer layers"
            ) from None
    print(f"{len(layers)} layers are ready; compiling or loading kernels took {time.perf_counter() - start:.1f} s")


def _machine(renew: bool, threads: list[int | None]) -> None:
    """Show what is stored; with ``renew``, measure it first."""
    if renew:
        userdir.check_writable("machine")
        wanted = threads or [1, None, *limits.stored()]
        counts = sorted({thread_count("machine", count) for count in wanted})
        work: list[tuple[str, Callable[[], object]]] = [
            (f"limits of {count} threads", partial(limits.renew, count)) for count in counts
        ]
        work += [(question[0].label, partial(tuning.tune, *question)) for question in tuning.winners()]
        for _, measure in _progress(work):
            measure()
    for line in stored.lines():
        _say(line)


def _say(text: str, stream: TextIO | None = None) -> None:
    # Names may come from untrusted files.
    print(visible(text), file=stream)


def _weight(problem: Conv2dProblem) -> Array:
    return np.ones(problem.weight_shape, problem.dtype)


def _progress(items: list[tuple[str, Item]]) -> Iterator[tuple[str, Item]]:
    """The named items, with a bar on stderr; a plain line for each where stderr is no terminal."""
    start, total, terminal = time.perf_counter(), len(items), sys.stderr.isatty()
    for done, item in enumerate(items):
        left = f", {(time.perf_counter() - start) / done * (total - done):.0f} s left" if done else ""
        text = visible(f"{done + 1}/{total} {item[0]}{left}", lines=False)
        bar = "#" * (BAR * done // total)
        print(f"\r\x1b[K[{bar:{BAR}}] {text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr)
        sys.stderr.flush()
        yield item
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
