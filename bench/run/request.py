"""The request of a session: options -> cases and a run folder, new or resumed.

Nothing is written before `Request.open`: a session that only lists its cases leaves no folder.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from conv_impls import ConvError
from conv_impls.workloads import WorkloadError

from ..peers import packages
from ..store.coverage import Taken
from ..store.folder import SCHEMA, Run
from ..store.records import Case, StoreError
from .options import FLOOD, RUNS, Options, UsageError, last_level_bytes
from .versions import Version, resolved

# Errors in user input: one line and exit code 2, or pytest's 4.
WRONG_INPUT = (UsageError, WorkloadError, StoreError, ConvError, OSError)


@dataclass(frozen=True)
class Request:
    """Options with their cases and other versions of the package, and the run folder for the results."""

    options: Options
    cases: list[Case]
    folder: Path
    resume: bool = False
    models: dict[str, Taken] = field(default_factory=dict)
    versions: dict[str, Version] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", resolved(case.backend for case in self.cases))

    @classmethod
    def new(cls, options: Options, out: Path | None = None) -> Request:
        """A new run; a folder that already contains a run is an error."""
        folder = out or RUNS / datetime.now().strftime("%Y%m%d-%H%M%S")
        if (folder / "config.json").exists():
            raise UsageError(f"--out: {folder} already contains a run; use another folder, or --resume {folder}")
        cases, models = options.asked()
        return cls(options, cases, folder, models=models)

    @classmethod
    def resumed(cls, folder: Path, given: dict[str, Any]) -> Request:
        """The run in this folder; the options ``given`` must equal those it was created with."""
        config, defaults = Run.open(folder).config, asdict(Options())
        if config.get("schema") != SCHEMA:
            raise UsageError(f"--resume: {folder} was written by another version; start a new run")
        stored = config.get("options")
        kinds = {name: type(value) for name, value in defaults.items()}
        if not isinstance(stored, dict) or {name: type(value) for name, value in stored.items()} != kinds:
            raise UsageError(f"--resume: the options of {folder} cannot be read; start a new run")
        asked = asdict(Options(**given))
        for name in given:
            if stored[name] != (value := asked[name]):
                raise UsageError(
                    f"--resume: the run was made with --{name} {stored[name]!r}, got {value!r}; "
                    "omit the option, or start a new run"
                )
        options = Options(**stored)
        cases, models = options.asked()
        return cls(options, cases, folder, resume=True, models=models)

    def open(self) -> Run:
        """The run folder: a new one with the current machine, or the resumed one with its stored machine.

        Raises
        ------
        UsageError
            Machine, versions or layers of a resumed run have changed.
        StoreError
            The folder cannot be written, or already contains a run.
        """
        from ..machine.environment import VOLATILE

        facts = self.environment()
        if not self.resume:
            from ..machine import probes

            # Checked before the measurement of the machine, which takes seconds.
            Run(self.folder).check_free()
            return Run.create(self.folder, self._config(facts), facts | {"machine": probes.measure_machine()})
        run = Run.open(self.folder)
        before = run.environment
        if before.get("id") != facts["id"]:
            changed = [key for key in facts if before.get(key) != facts[key] and key not in VOLATILE]
            raise UsageError(f"--resume: the machine or versions changed ({', '.join(changed)}); start a new run")
        # The program may be called by its other name. The options of the command have been compared.
        made = self._config(facts) | {"command": run.config.get("command")}
        if changed := [key for key in made if run.config.get(key) != made[key]]:
            raise UsageError(f"--resume: {', '.join(changed)} of {self.folder} would differ now; start a new run")
        return run

    def environment(self) -> dict[str, Any]:
        """The current machine, with the packages that these backends need."""
        from ..machine.environment import environment

        return environment(packages(case.backend for case in self.cases))

    def _config(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The configuration that the run folder stores, on a machine with these facts."""
        options = self.options
        return {
            "command": options.command(), "options": asdict(options), "repeat": options.further(),
            "timeout_s": options.timeout, "budget_s": options.budget, "seconds": options.seconds, "seed": options.seed,
            "variables": options.variables(), "fresh_cache": options.kernels == "fresh",
            "rotate_bytes": FLOOD * last_level_bytes(facts["caches"]),
            "models": self.models,
            "cases": [msgspec.structs.asdict(case) for case in self.cases],
            # Only if there are any: a run without this key, from before versions existed, can still be resumed.
            **({"versions": {name: version.facts for name, version in self.versions.items()}} if self.versions else {}),
        }  # fmt: skip
