"""``--plugin``: a module or the path of a file, found from everywhere, and refused in one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import TINY, Bench, one_line

from bench.run import plugin
from bench.run.options import Options, UsageError
from bench.run.request import Request
from bench.run.worker import PLUGIN
from bench.store.folder import Run
from conv_impls import registry

ROOT = Path(__file__).parent.parent
MINE = """
import beside
from conv_impls import register
from conv_impls.reference import reference
@register(beside.NAME)
def run(x, weight, bias, problem):
    return reference(x, weight, bias, problem).astype(x.dtype)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in in a folder, with a module of its own beside it; the command is run elsewhere."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "my_backend.py").write_text(MINE)
    (folder / "beside.py").write_text("NAME = 'mine'\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    yield folder / "my_backend.py"
    for name in set(sys.modules) - known:
        if name.startswith(("my_backend_", "json_", "beside")):
            del sys.modules[name]


@pytest.mark.parametrize(
    "text", ["a folder/my_backend.py", "./a folder/my_backend.py", "a folder/../a folder/my_backend.py"]
)
def test_a_path_is_recorded_absolute_and_read_once(mine: Path, text: str) -> None:
    options = Options(workload=TINY, backends="mine,numpy_strided", plugin=text, threads="1")
    assert options.plugin == str(mine)
    assert {case.backend for case in options.cases()} == {"mine", "numpy_strided"}
    assert {case.backend for case in options.cases()} == {"mine", "numpy_strided"}, "not registered twice"
    assert shlex.split(options.further())[-2:] == ["--plugin", str(mine)]
    assert options.variables()[PLUGIN] == str(mine)


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", *words], cwd=folder, env=variables, capture_output=True, text=True)


def test_commands_take_a_path_where_they_are_run(mine: Path) -> None:
    asked = ("--workload", TINY, "--backends", "mine", "--threads", "1")
    checked = command(mine.parent, "bench", "check", *asked, "--plugin", "./my_backend.py")
    assert "1 cases, 0 wrong" in checked.stdout, checked.stderr
    words = ("--bench-workload", TINY, "--bench-backends", "mine", "--bench-threads", "1", "--bench-plugin", str(mine))
    session = command(
        ROOT, "pytest", "bench", "-q", "--benchmark-disable", "-k", "conv2d", "-p", "no:cacheprovider", *words
    )
    assert "1 passed" in session.stdout, session.stdout + session.stderr


def test_a_resumed_run_knows_the_file_by_any_spelling(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request.new(
        Options(workload=TINY, backends="mine", threads="1", plugin="a folder/my_backend.py"), tmp_path / "run"
    )
    Run.create(tmp_path / "run", request._config(request.environment() | {"caches": {}}), request.environment())
    monkeypatch.chdir(mine.parent)
    assert Request.resumed(tmp_path / "run", {"plugin": "./my_backend.py"}).options.plugin == str(mine)
    monkeypatch.chdir("/")
    assert Request.resumed(tmp_path / "run", {}).options.plugin == str(mine)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["repeat"].endswith(f"--plugin '{mine}'")
    with pytest.raises(UsageError, match="--resume: the run was made with --plugin"):
        Request.resumed(tmp_path / "run", {"plugin": "./my_backend.py"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("./none.py", "none.py' cannot be imported: FileNotFoundError: there is no such file"),
        ("none.py", "none.py' cannot be imported: FileNotFoundError: there is no such file"),
        ("a folder/", "cannot be imported: IsADirectoryError: it is a folder; name a file in it, or a module"),
        ("../" , "cannot be imported: IsADirectoryError"),
        ("plain", "'plain' cannot be imported: IsADirectoryError: it is a folder without __init__.py"),
        ("./raises.py", "raises.py' cannot be imported: RuntimeError: no way \\x1b[31m"),
        ("./leaves.py", "leaves.py' cannot be imported: SystemExit: 3"),
        ("./broken.py", "broken.py' cannot be imported: SyntaxError: "),
        ("no_such_module", "'no_such_module' cannot be imported: ModuleNotFoundError"),
        ("json", "'json' cannot be imported: ImportError: it is ./json.py and also the module "),
        ("math", "'math' cannot be imported: ImportError: it is ./math.py and also the module "),
        ("json.tool", "'json.tool' cannot be imported: ImportError: it is ./json.py and also the module "),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_one_line(bench: Bench, mine: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "plain").mkdir(exist_ok=True)
    for name, code in (
        ("raises", "raise RuntimeError('no\\n way \\x1b[31m')"), ("leaves", "raise SystemExit(3)"), ("broken", "def"),
        ("json", ""), ("math", ""),
    ):  # fmt: skip
        (tmp_path / f"{name}.py").write_text(code)
    one_line(bench("run", "--workload", TINY, "--plugin", text), words)


def test_the_file_of_such_a_name_is_meant_by_its_path(mine: Path, tmp_path: Path) -> None:
    shutil.copy(mine, tmp_path / "json.py")
    shutil.copy(mine.parent / "beside.py", tmp_path)
    assert "mine" in {case.backend for case in Options(workload=TINY, backends="mine", plugin="./json.py").cases()}


def test_what_a_plug_in_prints_is_shown_and_not_obeyed(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine.write_text(MINE + "print('\\x1b[31mhere')\n")
    Options(workload=TINY, backends="mine", plugin=str(mine)).cases()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "\\x1b[31mhere\n")


def test_a_module_stays_a_name() -> None:
    assert plugin.recorded("bench.run.overhead") == "bench.run.overhead"
    assert plugin.recorded("") == ""
