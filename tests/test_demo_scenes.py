"""The bundled demo data set: Broden's format to the letter, the same bytes every time, and never half a folder."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ndissect.engine.data.colors import COLORS, color_map
from ndissect.engine.demo import scenes, vocabulary
from ndissect.engine.demo.render import render
from ndissect.store.errors import NDError

IMAGES = 240
CATEGORIES = ("color", "object", "part", "material", "scene", "texture")


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def numbers(path: Path) -> np.ndarray:
    """A label map, read as Broden says: R + 256 * G."""
    image = Image.open(path)
    assert image.mode == "RGB"
    rgb = np.asarray(image).astype(int)
    assert not rgb[..., 2].any()
    return rgb[..., 0] + 256 * rgb[..., 1]


def digest(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes.write(tmp_path_factory.mktemp("demo") / "set", images=IMAGES, seed=0)


def test_the_index_has_brodens_columns_and_its_split(root: Path) -> None:
    rows = table(root / "index.csv")
    assert list(rows[0]) == ["image", "split", "ih", "iw", "sh", "sw", *CATEGORIES]
    assert len(rows) == IMAGES
    for row in rows:
        share = int(hashlib.md5(row["image"].encode()).hexdigest()[:16], 16) / 2**64
        assert row["split"] == ("train" if share <= 0.7 else "val")
    assert {row["split"] for row in rows} == {"train", "val"}


def test_every_file_that_the_index_names_is_there_in_the_size_it_says_and_no_other(root: Path) -> None:
    named = set()
    for row in table(root / "index.csv"):
        named.add(row["image"])
        image = Image.open(root / "images" / row["image"])
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (int(row["iw"]), int(row["ih"])))
        for category in CATEGORIES:
            for item in filter(None, row[category].split(";")):
                if not item.isdecimal():
                    named.add(item)
                    assert numbers(root / "images" / item).shape == (int(row["sh"]), int(row["sw"]))
    images = root / "images"
    assert named == {p.relative_to(images).as_posix() for p in images.rglob("*") if p.is_file()}


def test_frequency_and_coverage_are_what_the_maps_hold(root: Path) -> None:
    frequency = {c: dict.fromkeys(range(1, 256), 0) for c in CATEGORIES}
    coverage = {c: dict.fromkeys(range(1, 256), 0.0) for c in CATEGORIES}
    anywhere = dict.fromkeys(range(1, 256), 0)
    for row in table(root / "index.csv"):
        seen = set()
        for category in CATEGORIES:
            held: dict[int, np.ndarray] = {}
            for item in filter(None, row[category].split(";")):
                whole = item.isdecimal()
                cell = np.full((1, 1), int(item)) if whole else numbers(root / "images" / item)
                for n in set(cell.ravel().tolist()) - {0}:
                    held[n] = held.get(n, False) | (cell == n)
            for n, where in held.items():
                frequency[category][n] += 1
                coverage[category][n] += float(where.mean())
            seen |= set(held)
        for n in seen:
            anywhere[n] += 1
    for category in CATEGORIES:
        rows = table(root / f"c_{category}.csv")
        assert [int(r["code"]) for r in rows] == list(range(1, len(rows) + 1))
        assert {int(r["number"]) for r in rows} == {n for n, count in frequency[category].items() if count}
        for r in rows:
            assert int(r["frequency"]) == frequency[category][int(r["number"])]
            assert float(r["coverage"]) == pytest.approx(coverage[category][int(r["number"])], rel=1e-5)
    labels = table(root / "label.csv")
    assert [int(r["number"]) for r in labels] == sorted(n for n, count in anywhere.items() if count)
    for r in labels:
        n = int(r["number"])
        assert int(r["frequency"]) == anywhere[n]
        parts = sorted(r["category"].split(";"))
        assert parts == sorted(f"{c}({frequency[c][n]})" for c in CATEGORIES if frequency[c][n])
    summary = {r["name"]: r for r in table(root / "category.csv")}
    assert tuple(summary) == CATEGORIES
    for category, r in summary.items():
        present = [n for n, count in frequency[category].items() if count]
        assert (int(r["first"]), int(r["last"]), int(r["count"])) == (min(present), max(present), len(present))


def test_the_hard_cases_of_the_format_occur(root: Path) -> None:
    rows = table(root / "index.csv")
    assert any(";" in row["object"] for row in rows), "an object seen through a window: two object maps"
    assert any(";" in row["part"] for row in rows), "a hub is a part of a wheel: two part maps"
    assert any(not row["object"] and row["texture"] for row in rows), "an empty cell"
    categories = {r["name"]: r["category"] for r in table(root / "label.csv")}
    assert {"object", "material"} == {c.split("(")[0] for c in categories["grass"].split(";")}
    assert {"object", "part"} == {c.split("(")[0] for c in categories["door"].split(";")}
    assert all(categories[f"{name}-c"].startswith("color") for name in COLORS)


def test_the_color_map_names_the_colours_of_the_jpeg(root: Path) -> None:
    for row in table(root / "index.csv")[:40]:
        pixels = np.asarray(Image.open(root / "images" / row["image"]))
        assert (numbers(root / "images" / row["color"]) == color_map(pixels)).all()


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 12), "black"), ((250, 250, 248), "white"), ((128, 128, 128), "grey"), ((220, 20, 25), "red"),
        ((30, 60, 200), "blue"), ((40, 150, 50), "green"), ((250, 220, 30), "yellow"), ((250, 140, 20), "orange"),
        ((110, 70, 30), "brown"), ((140, 40, 190), "purple"), ((250, 150, 180), "pink"), ((230, 70, 150), "pink"),
    ],
)  # fmt: skip
def test_a_plain_colour_has_the_name_a_person_gives_it(rgb: tuple[int, int, int], name: str) -> None:
    image = np.full((2, 2, 3), rgb, np.uint8)
    assert vocabulary.NAMES[int(color_map(image)[0, 0]) - 1] == f"{name}-c"


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_colour_has_one_of_the_eleven_names(rgb: tuple[int, int, int]) -> None:
    number = int(color_map(np.full((2, 2, 3), rgb, np.uint8))[0, 0])
    assert vocabulary.NAMES[number - 1] in {f"{name}-c" for name in COLORS}


def test_the_same_bytes_for_any_number_of_processes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "_cores", lambda: 1)
    once = digest(scenes.write(tmp_path / "one", images=IMAGES))
    monkeypatch.setattr(scenes, "_cores", lambda: 3)
    monkeypatch.setattr(scenes, "_SHARE", 80)
    assert digest(scenes.write(tmp_path / "three", images=IMAGES)) == once == digest(root)


def test_without_helper_processes_this_one_draws_everything(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scenes, "_cores", lambda: 2)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    assert digest(scenes.write(tmp_path / "set", images=IMAGES)) == digest(root)


def test_an_image_does_not_depend_on_the_others_but_on_the_seed() -> None:
    first = [render(0, k).picture.tobytes() for k in (7, 3, 5)]
    assert first == [render(0, k).picture.tobytes() for k in (7, 3, 5)]
    assert first != [render(1, k).picture.tobytes() for k in (7, 3, 5)]


def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "ndissect.engine.demo.scenes", str(folder), "--images", "1600"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.jpg"))) < 20:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not folder.exists()
    assert not list(tmp_path.rglob("index.csv"))
    (left,) = tmp_path.iterdir()
    drawn = -1
    while drawn != (drawn := len(list(left.rglob("*")))):  # the killed run's helpers finish the image they are at
        time.sleep(1)
    os.utime(left, (0, 0))
    assert scenes.write(folder, images=20) == folder
    assert list(tmp_path.iterdir()) == [folder], "what was left behind is cleared away"
    assert len(table(folder / "index.csv")) == 20


def test_ensure_draws_once_into_the_folder_that_nd_cache_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scenes.write, "__defaults__", (30, 0, None))
    calls: list[tuple[int, int]] = []
    root = scenes.ensure(progress=lambda done, total: calls.append((done, total)))
    assert root == tmp_path / "cache" / f"demo-{scenes.VERSION}"
    assert calls[-1] == (30, 30)
    assert [p.name for p in root.parent.iterdir()] == [root.name]
    before = (root / "index.csv").stat().st_mtime_ns
    assert scenes.ensure() == root
    assert (root / "index.csv").stat().st_mtime_ns == before


def test_a_folder_in_use_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(NDError, match="not empty"):
        scenes.write(tmp_path / "mine", images=2)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(NDError, match="cannot be written"):
        scenes.write(tmp_path / "file" / "set", images=2)


def test_the_generator_needs_neither_torch_nor_a_user_interface() -> None:
    script = (
        "import sys, ndissect.engine.demo.scenes; print(*{'torch', 'torchvision', 'rich', 'typer'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_shipped_weights_are_those_whose_accuracy_is_written_down() -> None:
    weights = Path(scenes.__file__).with_name("weights.safetensors")
    facts = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == facts["sha256"]
    assert weights.stat().st_size < 2_000_000
    assert facts["seed"] != 0, "the network was never shown the images that it is dissected on"


def test_the_network_knows_scenes_it_never_saw_and_layer4_is_what_the_relu_lets_through() -> None:
    import torch

    from ndissect.engine.demo.network import CLASSES, demo_cnn

    model, transform = demo_cnn()
    chosen = [render(0, k) for k in range(100)]
    images = torch.stack([torch.from_numpy(np.array(c.picture)).permute(2, 0, 1) for c in chosen])
    kept: list[torch.Tensor] = []
    model.get_submodule("layer4").register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.inference_mode():
        said = model(transform(images)).argmax(1).tolist()
    assert kept[0].shape == (100, 128, 14, 14)
    assert (kept[0] >= 0).all() and (kept[0] == 0).any()
    truth = [vocabulary.NAMES[next(iter(c.labels.values())) - 1] for c in chosen]
    assert sum(CLASSES[k] == name for k, name in zip(said, truth, strict=True)) >= 90
