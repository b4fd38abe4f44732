"""All figures of a run as drawings: text that can be read and is whole, one look per backend, light and dark files."""

from __future__ import annotations

import random
import re
import string
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from records import record

from bench.analysis import tables
from bench.analysis.frame import frame
from bench.peers import OWN, PEERS
from bench.report import figures
from bench.report.colours import DARK, HUES, INK, KNOWN, MUTED, PAPER, darkened, pairs, style
from bench.report.figures import FIGURES, Drawn, Kind, draw_all, save_all, slugs
from bench.report.ladder import RUNGS
from bench.report.style import WIDTH, NothingToDraw, save, spread, styled
from bench.store.records import Record
from conv_impls import backends

ENVIRONMENT: dict[str, Any] = {"cpu": "a CPU", "cores": 2, "date": "today", "machine": handmade.MACHINE}
# Width in pixels of a phone, and the least height of text in pixels that can be read there.
PHONE_PX, LEAST_PX = 390, 8
LONG = "/model.22/cv3.1/bottleneck/m.0/cv2/conv/Conv_with_a_suffix_"
# Kinds that need no measured case, or whose bars and texts are inside one another.
PHOTOGRAPH = "filters"


def users_run() -> list[Record]:
    """A model of a user with long names, and every axis and workload that a figure needs."""
    chance, found = random.Random(0), []
    names = ["auto", "python_loops", "numpy_strided", "numba_simd", "numba_depthwise", "onnxruntime", "torch_nchw"]
    names += ["a_backend_of_a_company_with_a_long_name", "auto@feature/some-branch"]
    layers = [(f"{LONG}{i}", f"{'g8' * (i % 3 == 0)}mb{{}}ic8ih{8 + i}oc8oh{8 + i}kh3ph1") for i in range(12)]
    cases = [
        ("a_users_model_exported_in_2026_with_opset17", layer, label.format(batch), threads)
        for (layer, label), batch, threads in product(layers, (1, 4), (1, 2))
    ]
    cases += [("sizes", f"image {s} at {c} channels", f"mb1ic{c}ih{s}oc{c}oh{s}kh3ph1", 2)
              for s, c in product((8, 16, 32), (8, 64))]  # fmt: skip
    cases += [("kernel_sizes", f"8-8 k{k} @16", f"mb1ic8ih16oc8oh16kh{k}ph{k // 2}", 2) for k in (1, 3, 5, 7)]
    for (workload, layer, label, threads), name in product(cases, names):
        time = 1e-3 * chance.uniform(0.5, 2) * (50 if name == "python_loops" else 1)
        turns = tuple(time * chance.uniform(0.95, 1.1) for _ in range(8))
        case = {"workload": workload, "label": f'{label}n"{layer}"', "threads": threads, "count": 2}
        more = {"threads_seen": "torch 9"} if chance.random() < 0.1 else {}
        found.append(record(name, layer, turns, case=case, mode="planned", prepare_s=chance.uniform(0, 1), **more))
    return found


@pytest.fixture(scope="module")
def drawn() -> list[Drawn]:
    found, missing = draw_all(FIGURES, frame(users_run()), ENVIRONMENT)
    assert {one.kind for one in found} == FIGURES.keys(), missing
    return found


def visible_texts(figure: Figure) -> list[Text]:
    """All texts that are drawn: not those of the axis of axes without one."""
    off = [axis for axes in figure.axes if not axes.axison for axis in (axes.xaxis, axes.yaxis)]
    hidden = {text for axis in off for text in axis.findobj(Text)}
    shown = (text for text in figure.findobj(Text) if text not in hidden)
    return [text for text in shown if text.get_visible() and text.get_text().strip()]


def test_every_figure_is_there_for_every_workload(drawn: list[Drawn]) -> None:
    workloads = {"a_users_model_exported_in_2026_with_opset17", "sizes", "kernel_sizes"}
    for kind in ("layers", "shares", "heatmap", "start", "ladder"):
        assert {one.workload for one in drawn if one.kind == kind} == workloads, kind
    assert [one.name for one in drawn if one.kind == "headline"] == ["headline", "headline_1_thread"]
    assert all(one.alt and "{}" not in one.alt for one in drawn)
    assert len({one.name for one in drawn}) == len(drawn)


def test_a_run_of_two_networks_has_every_figure_twice() -> None:
    found, missing = draw_all(FIGURES, handmade.table(), ENVIRONMENT)
    names = {one.name for one in found}
    assert {
        f"{kind}_{net}" for kind, net in product(("layers", "shares", "heatmap", "start"), ("resnet50", "vgg16"))
    } <= names
    # vgg16 has no two rungs.
    assert "ladder_resnet50" in names
    assert missing[0].startswith("figure ladder of vgg16: no dense 3x3 or depthwise layer")
    assert missing[1:] == ["figure time_vs_size: no measured image sizes (workload sizes)"]


def test_auto_is_in_every_figure_of_a_run_that_has_it(drawn: list[Drawn]) -> None:
    for one in drawn:
        words = " ".join(
            [one.title, one.figure.get_supxlabel(), *(text.get_text() for text in visible_texts(one.figure))]
        )
        # The points of the roofline are those of auto, which its legend calls ours.
        wanted = r"\bours\b" if one.kind == "roofline" else r"\bauto\b(?!@)"
        assert one.kind == PHOTOGRAPH or re.search(wanted, words), one.name


def points(text: Text) -> float:
    return float(text.get_fontsize())


def test_every_text_can_be_read_on_a_phone(drawn: list[Drawn]) -> None:
    for one in drawn:
        scale = PHONE_PX / (one.figure.get_figwidth() * 72)
        small = [text.get_text() for text in visible_texts(one.figure) if points(text) * scale < LEAST_PX]
        assert small == [], one.name
    assert points(Figure().text(0, 0, "x", fontsize=9)) * PHONE_PX / (WIDTH * 72) < LEAST_PX


def box(text: Text) -> Bbox:
    """Where the text is, without the arrow of an annotation."""
    return Text.get_window_extent(text)


def cut(figure: Figure) -> list[str]:
    """The texts that are not whole within the figure, by more than a pixel."""
    figure.draw_without_rendering()
    whole = figure.bbox.padded(1)
    texts = [(text.get_text(), box(text)) for text in visible_texts(figure)]
    return [text for text, at in texts if not (whole.contains(at.x0, at.y0) and whole.contains(at.x1, at.y1))]


def covered(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of labels of one axes that cover each other by more than two pixels; marks of weak points do not count."""
    figure.draw_without_rendering()
    found = []
    for axes in figure.axes:
        labels = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
        shown = [
            text
            for text in labels
            if text.get_visible() and len(text.get_text().strip()) > 1 and not text.get_rotation()
        ]
        for a, b in combinations(shown, 2):
            one, other = box(a), box(b)
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            if across > 2 and min(one.y1, other.y1) - max(one.y0, other.y0) > 2:
                found.append((a.get_text(), b.get_text()))
    return found


def test_no_text_is_cut_or_covers_another(drawn: list[Drawn]) -> None:
    for one in drawn:
        assert cut(one.figure) == [], one.name
        assert covered(one.figure) == [], one.name


def test_cut_and_covered_texts_are_found() -> None:
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    figure.suptitle("a title that is much too long for this figure, so its end cannot be seen")
    axes.text(0.5, 0.5, "one")
    axes.text(0.5, 0.52, "two")
    assert len(cut(figure)) == 1
    assert covered(figure) == [("one", "two")]


USERS = ["".join(random.Random(i).choices(string.ascii_lowercase + "@/_.", k=9)) for i in range(40)]


def test_no_two_backends_share_colour_and_marker() -> None:
    names = [*backends(), *OWN, *PEERS, *tables.LADDER, *USERS]
    made = pairs(names)
    assert len(set(made.values())) == len(made)
    assert made == pairs(names[::-1])
    assert {hue for hue, _ in made.values()} <= HUES.keys()
    assert PEERS.keys() | OWN.keys() <= KNOWN.keys(), "those of this project have their own pairs"


def test_a_backend_looks_the_same_in_every_figure_of_a_run() -> None:
    # Two names that want the same pair, so that it depends on the other which one they get.
    wants: dict[tuple[str, str], str] = {}
    first, second = next(
        (wants[pair], name)
        for i in range(500)
        if wants.setdefault(pair := pairs([name := f"x{i}"])[name], name) != name
    )

    def look(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
        looks[workload] = {name: style(name) for name in table.backend[table.workload == workload]}
        figure = Figure()
        figure.suptitle("x")
        return figure

    looks: dict[str, dict[str, tuple[str, str]]] = {}
    records = [record(name, case={"workload": net}) for net, name in (("a", first), ("a", second), ("b", second))]
    draw_all({"x": Kind(styled(look), "{}", "workload")}, frame(records), {})
    assert looks["a"][second] == looks["b"][second] != looks["a"][first]


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_in_light_and_dark() -> None:
    for colour in (INK, MUTED, *HUES.values()):
        assert contrast(colour, PAPER) >= 4.5, colour
        assert contrast(DARK[colour], DARK[PAPER]) >= 4.5, colour
    assert contrast("#E69F00", PAPER) < 4.5
    assert len({DARK[hue] for hue in HUES.values()}) == len(HUES)
    assert not set(DARK) & set(DARK.values()), "no colour is replaced twice"


def test_equal_data_give_equal_files_and_the_dark_one_has_no_light_colour(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
        table = handmade.table()
        found, _ = draw_all(FIGURES, table[table.workload == "resnet50"], ENVIRONMENT)
        save_all(found, folder)
    names = {path.name for path in folders[0].iterdir()}
    assert names == {one.name + end for one in found for end in (".png", ".svg", "-dark.svg")}
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    for one in found:
        light, dark = ((folders[0] / f"{one.name}{end}").read_text() for end in (".svg", "-dark.svg"))
        assert INK.lower() in light
        assert not [colour for colour in DARK if colour.lower() in dark], one.name
        assert dark == darkened(light)
        with Image.open(folders[0] / f"{one.name}.png") as image:
            assert image.width == round(140 * WIDTH)


def test_a_png_with_a_palette_looks_like_one_without(tmp_path: Path) -> None:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.imshow(np.linspace(0, 1, 64).reshape(8, 8), cmap="cividis")
    axes.plot([0, 7], [0, 7], color=HUES["vermilion"])
    save(figure, tmp_path / "x")
    figure.savefig(tmp_path / "all.png", dpi=140)
    with Image.open(tmp_path / "x.png") as few, Image.open(tmp_path / "all.png") as every:
        away = np.abs(np.asarray(few.convert("RGB"), float) - np.asarray(every.convert("RGB"), float))
    assert away.mean() < 1
    assert np.percentile(away, 99) < 20


def test_figures_of_an_earlier_run_go_and_files_of_the_user_stay(drawn: list[Drawn], tmp_path: Path) -> None:
    old = ["layers_oldnet.png", "layers_oldnet-dark.svg", "headline_8_threads.svg", "ladder.png"]
    mine = ["layers.txt", "zebra.png", "heatmap-mine.svg", "my_layers_x.png"]
    for name in old + mine:
        (tmp_path / name).write_text("x")
    save_all([drawn[0]], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*mine, "headline.png", "headline.svg", "headline-dark.svg"}


def test_names_of_files_are_unique_and_plain() -> None:
    names = ["a/b", "a b", "A_B", "ünï", "", "x" * 90, "x" * 91, "a-dark", "a"]
    made = slugs(names)
    assert len({slug.casefold() for slug in made.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._]{1,45}", slug) for slug in made.values())


def test_a_figure_without_data_is_left_out_by_name_with_all_reasons() -> None:
    def draw(table: pd.DataFrame, environment: dict[str, Any], workload: str) -> Figure:
        if workload == "b" and good:
            return Figure()
        raise NothingToDraw(f"nothing of {workload}")

    records = [record(case={"workload": name}) for name in "ab"]
    for good, expected in ((True, ["figure k of a: nothing of a"]), (False, ["figure k: nothing of a; nothing of b"])):
        found, missing = draw_all({"k": Kind(draw, "about {}", "workload")}, frame(records), {})
        assert missing == expected
        assert [(one.name, one.alt) for one in found] == [("k_b", "about b")] * good
    assert draw_all({"k": Kind(draw, "", "workload", sweep=True)}, frame(records), {}) == ([], [])


def test_labels_move_apart_as_little_as_possible() -> None:
    chance = random.Random(3)
    for _ in range(50):
        places = [chance.random() for _ in range(chance.randint(1, 9))]
        found = spread(places, 0.1)
        order = sorted(found)
        assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(order))
        assert min(found) >= 0
        assert max(found) <= 1 + 1e-9
        # Where there is room, nothing moves.
        if all(abs(a - b) >= 0.1 for a, b in combinations(places, 2)):
            assert found == pytest.approx(places)
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])


def test_the_rungs_are_those_of_the_tutorial() -> None:
    headings = re.findall(
        r"^## Rung (\d+): (\S+)$", (Path(__file__).parent.parent / "docs/tutorial.md").read_text(), re.MULTILINE
    )
    assert [(str(rung.number), rung.name) for rung in RUNGS] == headings


def test_the_kinds_of_figures_have_names_that_cannot_be_mistaken() -> None:
    for one, other in combinations(sorted(FIGURES), 2):
        assert not other.startswith(f"{one}_"), "a file of one would look like one of the other's workloads"
    assert figures.FIGURES is FIGURES
