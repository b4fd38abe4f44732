"""The files around the code: workflows run what CI runs, and workflows, templates, citation and hooks are valid."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conv_impls import __version__

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHECKED = [
    *((path, "github-workflows") for path in WORKFLOWS),
    (ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml", "github-issue-config"),
    *((path, "github-issue-forms") for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))),
    (ROOT / "CITATION.cff", "citation-file-format"),
]
# The only step that CI does not run.
PUBLISHING = "gh release create "
# One target, with variables. The output may become a result of the job.
STEP = re.compile(r'make ([a-z-]+)( [A-Z]+=("[^"]*"|\$\{\{[^}]*\}\}))*( >> "\$GITHUB_OUTPUT")?')


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def invalid(path: Path, schema: str) -> str:
    """Why the file does not match this schema; empty if it does."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    command += ["--default-filetype", "yaml", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def targets_of_ci(script: str) -> set[str]:
    """The targets that a shell script makes."""
    lines = (line.partition("#")[0] for line in script.splitlines())
    calls = re.findall(r"(?:^|[;&|] *|\bthen +)make ([^;&|\n]*)", "\n".join(lines), re.MULTILINE)
    return {word for call in calls for word in call.split() if re.fullmatch(r"[a-z-]+", word)}


def commands_of(targets: set[str]) -> set[str]:
    """The commands of these targets and of all that they need, with the Python of the system."""
    command = ["make", "--dry-run", "--always-make", *sorted(targets)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {line.strip().replace(".venv/bin/python", "python") for line in done.stdout.splitlines()}


def strangers(workflow: dict[str, Any], ci: set[str], windows: set[str]) -> list[str]:
    """Steps of a workflow that CI does not run; on Windows they are commands of targets of CI."""
    found = []
    for name, job in workflow["jobs"].items():
        runs = [step["run"].strip() for step in job.get("steps", []) if "run" in step]
        if "windows" in str(job.get("runs-on")):
            found += [run for run in runs if run not in windows]
        else:
            found += [
                run
                for run in runs
                if not ((match := STEP.fullmatch(run)) and match[1] in ci)
                and not (name == "publish" and run.startswith(PUBLISHING))
            ]
    return found


@pytest.fixture(scope="module")
def ci() -> set[str]:
    return targets_of_ci((ROOT / ".ci" / "run").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("path", "schema"), CHECKED, ids=lambda value: getattr(value, "name", value))
def test_a_file_of_the_repository_is_valid(path: Path, schema: str) -> None:
    assert not invalid(path, schema)


def test_a_workflow_that_is_not_valid_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "workflow.yml"
    path.write_text("name: x\non: push\njobs:\n  one:\n    runs_on: ubuntu-latest\n    steps: []\n")
    assert "runs_on" in invalid(path, "github-workflows")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_of_a_workflow_is_a_target_that_ci_makes(path: Path, ci: set[str]) -> None:
    assert strangers(loaded(path), ci, commands_of({"conformance"})) == []


def test_ci_makes_targets_that_exist(ci: set[str]) -> None:
    assert {"test", "test-long", "test-lowest", "matrix", "conformance", "lint", "types"} <= ci
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert ci <= set(known)


def test_a_step_that_ci_does_not_run_would_be_seen() -> None:
    script = (
        "make test\n# make old\nif true; then make setup-browser; fi\nmake lint types X=$(make inner)\necho make none\n"
    )
    ci = targets_of_ci(script)
    assert ci == {"test", "setup-browser", "lint", "types"}

    def steps(system: str, *runs: str) -> dict[str, Any]:
        return {"runs-on": system, "steps": [{"uses": "actions/checkout@v4"}, *({"run": run} for run in runs)]}

    jobs = {
        "one": steps(
            "ubuntu-latest", "make test", "make lint X=${{ a.b }}", "make old", "pytest", "make test && pytest"
        ),
        "publish": steps("ubuntu-latest", "gh release create x", "twine upload dist/*"),
        "windows": steps("windows-latest", "python -m pytest tests", "make test"),
    }
    found = strangers({"jobs": jobs}, ci, {"python -m pytest tests"})
    assert found == ["make old", "pytest", "make test && pytest", "twine upload dist/*", "make test"]


def test_the_matrix_has_every_python_and_system() -> None:
    jobs = loaded(ROOT / ".github" / "workflows" / "matrix.yml")["jobs"]
    classifiers = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name in ("posix", "windows"):
        assert jobs[name]["strategy"]["matrix"]["python"] == classifiers
    assert jobs["posix"]["strategy"]["matrix"]["backend"] == "${{ fromJSON(needs.backends.outputs.names) }}"
    assert [word.split("-")[0] for word in jobs["posix"]["strategy"]["matrix"]["system"]] == [
        "ubuntu",
        "ubuntu",
        "macos",
    ]


def test_the_citation_has_the_version_of_the_package() -> None:
    assert loaded(ROOT / "CITATION.cff")["version"] == __version__


def test_the_hooks_find_nothing_in_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    files = [name for name in listed if name]
    (repo,) = loaded(ROOT / ".pre-commit-config.yaml")["repos"]
    for hook in repo["hooks"]:
        program, *options = hook["entry"].split()
        kinds = hook.get("types_or", [])
        suffix = ".py" if "python" in kinds else ""
        chosen = [name for name in files if name.endswith(suffix) and not re.search(hook.get("exclude", "$^"), name)]
        command = [str(Path(sys.executable).parent / Path(program).name), *options, *chosen]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
