"""A run -> results/: tables, figures, README.md and report.html, and the generated block of the project's README.

The only writer of those. Everything is made from the stored records, so a report can be remade at any time without
measuring; a figure whose cases a run does not hold is left out, and named as such.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from bench import contest, plots, roofline, sweeps, tables
from bench.frame import frame
from bench.html import write_page
from bench.store import Run, StoreError

BLOCK = re.compile(r"(<!-- begin generated: results -->\n).*?(<!-- end generated: results -->)", re.DOTALL)
NETWORKS = ("resnet50", "vgg16", "mobilenet_v2", "convnext_tiny")
# Of what is plain (forward, warm, one dtype), and of everything the run varied.
PLAIN_FIGURES = plots.FIGURES | {"roofline": roofline.roofline}
FIGURES = PLAIN_FIGURES | sweeps.FIGURES
ALT = plots.ALT | roofline.ALT | sweeps.ALT
HEADLINES = (
    "Their time over ours, on the sum of each network, with the middle 95% of a bootstrap over turns taken side by "
    "side. The best peer is the fastest of all other libraries at each layer, which no one library is; eager backends "
    "get the weights at each call, `auto_strict` sums directly."
)
COSTS = (
    "Compiling (or loading compiled code from disk) and preparing all layers once, a pass over the network, memory, "
    "and the passes after which the former pay off against the fastest backend that needs neither."
)


def write_report(run: Run, out: Path, readme: Path | None) -> list[str]:
    """Write everything; returns what was left out and why."""
    table = frame(run.records(), run.cases)
    if table.empty:
        raise StoreError(f"{run.folder}: no finished cases to report")
    environment = run.environment
    (out / "tables").mkdir(parents=True, exist_ok=True)
    (out / "figures").mkdir(parents=True, exist_ok=True)

    made = all_tables(table)
    for name, content in made.items():
        content.to_csv(out / "tables" / f"{name}.csv", index=False, float_format="%.6g")
        (out / "tables" / f"{name}.md").write_text(markdown(content) + "\n", encoding="utf-8")

    missing, drawn = [], []
    for name, draw in FIGURES.items():
        try:
            figure = draw(tables.plain(table) if name in PLAIN_FIGURES else table, environment)
        except plots.NothingToDraw as reason:
            # That a run is no sweep needs no word.
            if name in PLAIN_FIGURES:
                missing.append(f"figure {name}: {reason}")
            continue
        plots.save(figure, out / "figures" / name)
        drawn.append(name)
    # What an earlier report made and this one did not would be taken for this run's.
    for folder, names in (("tables", list(made)), ("figures", drawn)):
        for path in (out / folder).iterdir():
            if path.stem not in names:
                path.unlink()
    (out / "README.md").write_text(_page(run, table, made, drawn, missing), encoding="utf-8")
    write_page(run, table, made, out / "report.html", missing)
    if readme is not None and readme.exists():
        text = readme.read_text(encoding="utf-8")
        if BLOCK.search(text):
            block = summary_block(table, environment)
            readme.write_text(BLOCK.sub(lambda m: m[1] + block + m[2], text), encoding="utf-8")
    return missing


def all_tables(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Every table of a report that the run has rows for, by name."""
    plain = contest.measured(table)
    made = {
        "network_sums": tables.network_sums(table), "headlines": contest.headlines(table),
        "against": contest.against(table), "best_peer_by_layer": contest.by_layer(plain, "auto", contest.BEST),
        "regret": contest.regret(table), "winners": tables.winners(table), "costs": tables.costs(table),
        "utilisation": roofline.utilisation(table), "thread_efficiency": sweeps.thread_efficiency(table),
        "ladder": tables.ladder(table, "resnet50"), "correctness": tables.correctness(table),
        "numba_direct_over_numpy_im2col": tables.ratio(table, "numba_direct", "numpy_im2col"),
        "numpy_strided_over_numpy_im2col": tables.ratio(table, "numpy_strided", "numpy_im2col"),
        "statuses": tables.statuses(table), "not_ok": tables.not_ok(table), "cases": tables.per_case(table),
    }  # fmt: skip
    return {name: content for name, content in made.items() if not content.empty or name == "not_ok"}


def markdown(content: pd.DataFrame) -> str:
    """A Markdown table, three significant figures, pipes escaped."""
    if content.empty:
        return "none"
    return str(content.map(_cell).to_markdown(index=False, disable_numparse=True))


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value.replace("|", "\\|")
    return "" if pd.isna(value) else f"{value:,.3g}" if isinstance(value, float) else str(value)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """The table a run ends with: the sums of the networks, or, where there is none, of the other workloads."""
    networks = table[table.workload.isin(NETWORKS)]
    return tables.network_sums(networks) if not networks.empty else tables.network_sums(table)


def machine_line(environment: dict[str, object]) -> str:
    """One line on what was measured where and when."""
    packages = environment.get("packages")
    versions = packages if isinstance(packages, dict) else {}
    named = ", ".join(f"{name} {versions[name]}" for name in ("numpy", "numba", "scipy") if versions.get(name))
    return (
        f"{environment.get('cpu')}, {environment.get('cores')} cores, {environment.get('vector_bits')}-bit vectors; "
        f"Python {environment.get('python')}, {named}; {environment.get('date')}, commit {environment.get('commit')}"
    )


def summary_block(table: pd.DataFrame, environment: dict[str, object]) -> str:
    note = (
        "Time of all convolutions of a network at batch 1, float32; n of m where only n of its m layers could be "
        f"measured. {machine_line(environment)}."
    )
    return f"\n{markdown(summary(table))}\n\n{note}\n\n"


def _page(run: Run, table: pd.DataFrame, made: dict[str, pd.DataFrame], drawn: list[str], missing: list[str]) -> str:
    config = run.config
    lines = [
        "# Results", "",
        "Generated by `python -m bench report`; do not edit. Raw records: "
        f"`runs/{run.folder.name}/records.jsonl`. How to read the numbers: see the project's README.", "",
        f"{machine_line(run.environment)}. Command: `{config.get('command')}`.", "",
        "## Network sums", "", "Sum over the layers, weighted by how often the network has each; batch 1.", "",
        markdown(summary(table)), "",
    ]  # fmt: skip
    if "headlines" in made:
        lines += ["## Ours and other libraries", "", HEADLINES, "", markdown(made["headlines"]), ""]
    if "ladder" in made:
        lines += [
            "## The ladder, on ResNet-50",
            "",
            "Geometric mean over the layers all backends measured. numpy_im2col copies element by element on purpose "
            "(see docs/decisions/0002-im2col-copies-elements.md): ratios over it flatter every other backend.",
            "",
            markdown(made["ladder"]),
            "",
        ]
    for name in drawn:
        lines += [f"![{ALT[name]}](figures/{name}.png)", ""]
    lines += ["## What it costs beside the run", "", COSTS, "", markdown(made["costs"]), ""] if "costs" in made else []
    lines += ["## How the cases ended", "", markdown(made["statuses"]), ""]
    lines += ["## Tables", "", *(f"- [{name}](tables/{name}.md) ([CSV](tables/{name}.csv))" for name in made), ""]
    if missing:
        lines += ["## Left out", "", *(f"- {text}" for text in missing), ""]
    return "\n".join(lines)
