"""Labels by a network, or by the names of colours, in place of labels by hand: the same counts on every path."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from broden_factory import Concept, Picture, write_broden
from networks_factory import write_network
from PIL import Image
from pretended_gpu import PretendedGpu
from typer.testing import CliRunner

from ndissect.engine.data.class_names import read_class_names
from ndissect.engine.data.color_names import color_numbers
from ndissect.engine.data.colors import COLORS
from ndissect.engine.data.formats import open_dataset
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.label_file import LabelFile
from ndissect.engine.data.made_labels import MadeLabels
from ndissect.engine.data.photographs import open_photographs
from ndissect.engine.experiments.from_options import rotate_layer, sweep_quantiles
from ndissect.engine.machine.console import Console
from ndissect.engine.machine.memory import Budget
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.labeller import scores_of, with_labels
from ndissect.engine.passes.loader import DecodeIn, Loader, image_tensor
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.labelling import label_images
from ndissect.engine.run.merged_store import merge_to_store
from ndissect.engine.run.options import Options
from ndissect.engine.run.settings import Settings
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.model import Dissection
from ndissect.store.protocol import make_protocol
from ndissect.store.reader import Store
from ndissect.tui.cli.main import app
from ndissect.tui.tables.origin import origin
from ndissect.tui.tables.remarks import cautions, labels_line, marks, summary_lines

SIZE, GRID, IMAGES, CLASSES = 32, 16, 23, 5
CPU = torch.device("cpu")

# Red is the number of the object that a pixel shows, so a labeller that looks at red knows the labels by hand.
NETWORKS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Labeller(nn.Module):
    """Scores of the true labels at the size of the input."""

    classes = ["background", *(f"thing-{n}" for n in range(1, 6))]
    every = 1

    def forward(self, x):
        held = x[:, 0, :: self.every, :: self.every].long()
        return 9.0 * F.one_hot(held, 6).permute(0, 3, 1, 2).float()


class Coarse(Labeller):
    every = 2

    def forward(self, x):
        return {"out": super().forward(x), "aux": x}


class Unnamed(Labeller):
    classes = None


class Single(nn.Module):
    classes = ["thing-3"]

    def forward(self, x):
        return (x[:, :1] == 3).float() * 8 - 4, x


class Flat(Labeller):
    def forward(self, x):
        return super().forward(x).mean((2, 3))


def as_it_is(x):
    return x.float()


def labeller():
    return Labeller(), as_it_is


def coarse():
    return Coarse(), as_it_is


class Scaled(Labeller):
    def forward(self, x):
        return super().forward((x * 255).round())


def scaled():
    return Scaled()


def unnamed():
    return Unnamed(), as_it_is


def single():
    return Single(), as_it_is


def flat():
    return Flat(), as_it_is


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.units = nn.Conv2d(3, 7, 3, stride=2, padding=1)
        g = torch.Generator().manual_seed(5)
        self.units.weight.data = torch.randint(-3, 4, self.units.weight.shape, generator=g).float()
        self.units.bias.data = torch.zeros(7)

    def forward(self, x):
        return self.units(x)


def network():
    return Net(), as_it_is
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``data``, labelled by hand; ``photographs``: the same pictures alone; ``nets.py``."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(2)
    pictures = []
    for i in range(IMAGES):
        held = rng.choice(CLASSES + 1, (GRID // 4, GRID // 4)).repeat(4, 0).repeat(4, 1)
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        pixels[:, :, 0] = held.repeat(2, 0).repeat(2, 1)
        name = f"{('here', 'there')[i % 2]}/{i:03d}.png"
        pictures.append(Picture(maps={"object": held.astype(np.uint16)}, name=name, pixels=pixels))
    concepts = [Concept(n, f"thing-{n}") for n in range(1, CLASSES + 1)]
    write_broden(folder / "data", pictures, concepts, grid=(GRID, GRID), categories=("object",))
    for picture in pictures:
        path = folder / "photographs" / picture.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "data" / "images" / picture.name, path)
    write_network(folder, NETWORKS, "nets.py")
    return folder


def options(folder: Path, labeller: str | None = "labeller", data: str = "data", **more: object) -> Options:
    return Options(
        network=f"{folder / 'nets.py'}:network",
        layers=("units",),
        data=str(folder / data),
        labeller=f"{folder / 'nets.py'}:{labeller}" if labeller else None,
        **{"quantile": "1/7", "grid": str(GRID), "device": "cpu", "workers": 1, **more},
    )


def labelled(folder: Path, labeller: str | None = "labeller", data: str = "data", **more: object) -> MadeLabels:
    chosen = options(folder, labeller, data, **more)
    source = open_photographs(folder / data) if data == "photographs" else open_dataset(folder / data)
    made = label_images(chosen, source, chosen.make_protocol(), CPU, Console())
    assert isinstance(made, MadeLabels)
    return made


def dissected(folder: Path, dataset: object, **changes: object) -> Dissection:
    network = load_network(f"{folder / 'nets.py'}:network")
    layers = [layer for layer in list_layers(network, (SIZE, SIZE)) if layer.name == "units"]
    settings = replace(Settings(workers=1, top=4), **changes)
    protocol = make_protocol(q="1/7", grid=str(GRID))
    outcome = dissect(network, dataset, layers, protocol, settings, Progress())
    assert outcome.dissection is not None
    return outcome.dissection


def demand_equal(found: Dissection, expected: Dissection) -> None:
    a, b = found.layers[0], expected.layers[0]
    for name in ("intersection", "area", "area_in_category"):
        np.testing.assert_array_equal(getattr(a.counts, name), getattr(b.counts, name))
    np.testing.assert_array_equal(a.statistics.threshold, b.statistics.threshold)
    np.testing.assert_array_equal(found.concept_counts.area, expected.concept_counts.area)
    np.testing.assert_array_equal(found.concept_counts.images, expected.concept_counts.images)
    np.testing.assert_array_equal(found.images.label_maps, expected.images.label_maps)
    assert (a.null is None) == (b.null is None)
    if a.null is not None and b.null is not None:
        for name in ("concept", "intersection", "area", "concept_area"):
            np.testing.assert_array_equal(getattr(a.null, name), getattr(b.null, name))


MEMORY = {"one pass": Budget(1 << 30, 0), "second pass": Budget(3_000, 0)}


@pytest.mark.parametrize("memory", MEMORY)
@pytest.mark.parametrize("batch", [1, 5, 32])
def test_a_labeller_that_knows_the_labels_by_hand_gives_their_counts(folder: Path, batch: int, memory: str) -> None:
    """Over batch sizes, with the null, whether or not images go through a second time."""
    expected = dissected(folder, open_dataset(folder / "data"), null=3)
    made = labelled(folder)
    found = dissected(folder, made, null=3, batch=batch, memory=MEMORY[memory])
    assert made.concepts.name == tuple(f"thing-{n}" for n in range(1, CLASSES + 1))
    demand_equal(found, expected)


@pytest.mark.parametrize("data", ["data", "photographs"])
def test_scores_of_another_size_are_brought_to_the_grid(folder: Path, data: str) -> None:
    """Also of a dict, and of photographs that nobody has labelled."""
    expected = dissected(folder, open_dataset(folder / "data"))
    found = dissected(folder, labelled(folder, "coarse", data))
    np.testing.assert_array_equal(found.concept_counts.area.sum(0), expected.concept_counts.area.sum(0))
    counts, by_hand = found.layers[0].counts, expected.layers[0].counts
    assert counts is not None
    assert by_hand is not None
    np.testing.assert_array_equal(counts.intersection.sum(0), by_hand.intersection.sum(0))


def test_labels_are_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass, the null, and the top images are told what the first pass was."""
    made = labelled(folder)
    runs = []
    module = made.maker._segmenter.network.module
    module.register_forward_hook(lambda _module, inputs, _output: runs.append(len(inputs[0])))
    dissected(folder, made, null=3, batch=4, memory=MEMORY["second pass"])
    assert sum(runs) == IMAGES


def test_pixels_below_the_least_score_have_no_label(folder: Path) -> None:
    # softmax of (9, 0, 0, 0, 0, 0) is 0.99938
    all_of_them = labelled(folder, labeller_min=0.9993).read_labels(0).maps
    none = labelled(folder, labeller_min=0.9995).read_labels(0).maps
    np.testing.assert_array_equal(all_of_them, open_dataset(folder / "data").read_labels(0).maps)
    assert not none.any()


def test_a_network_of_one_score_has_one_concept(folder: Path) -> None:
    made = labelled(folder, "single")
    by_hand = open_dataset(folder / "data").read_labels(3).maps
    assert made.concepts.name == ("thing-3",)
    np.testing.assert_array_equal(made.read_labels(3).maps, by_hand == 3)


def test_experiments_are_told_the_same_labels(folder: Path) -> None:
    quantiles = [Fraction(1, 5), Fraction(1, 20)]
    by_hand, made = (
        sweep_quantiles(options(folder, labeller), quantiles, Console()).sweep.dissections
        for labeller in (None, "labeller")
    )
    for a, b in zip(by_hand, made, strict=True):
        np.testing.assert_array_equal(a.layers[0].counts.intersection, b.layers[0].counts.intersection)
    turned = [
        rotate_layer(options(folder, labeller), [0.0, 1.0], Console(), seeds=1).rotated.bases
        for labeller in (None, "labeller")
    ]
    assert turned[0] == turned[1]


# Names of classes


@pytest.mark.parametrize(
    "text",
    [
        "void\nthing-1\nThing_1\n\nwheel\n",
        "number,name,category\n1,thing-1,\n2,THING-1,object\n4,wheel,part\n",
    ],
)
def test_a_file_names_the_classes(folder: Path, tmp_path: Path, text: str) -> None:
    """Classes of one name are one concept; some are none; a table says of which category they are."""
    names = tmp_path / "names.txt"
    names.write_text(text + ("other\n\n" if "number" not in text else "5,,\n"), encoding="utf-8")
    made = labelled(folder, "unnamed", labeller_classes=names)
    assert made.concepts.name == ("thing-1", "wheel")
    assert made.concepts.category_of(1) == ("part" if "number" in text else "object")
    by_hand = open_dataset(folder / "data").read_labels(0).maps[0]
    np.testing.assert_array_equal(made.read_labels(0).maps[0], np.array([0, 1, 1, 0, 2, 0])[by_hand])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.json", '["background", "tree", null, "wheel"]'),
        ("n.json", '{"1": "tree", "3": "wheel", "0": "void"}'),
        ("n.json", '{"id2label": {"1": "tree", "3": "wheel"}}'),
        ("n.csv", "id;label\n1;tree\n3;wheel\n"),
        ("n.txt", "0 background\n1 tree\n3 wheel\n"),
        ("n.txt", "name\n__background__\ntree\n\nwheel\n"),
        ("n.txt", "_background_\ntree\nothers\nwheel\n"),
    ],
)
def test_a_table_of_classes_has_the_forms_of_a_table_of_masks(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / name) == (None, ("tree", "object"), None, ("wheel", "object"))


def test_a_table_of_classes_without_use_is_refused(tmp_path: Path) -> None:
    for text, what in (
        ("#ff0000,tree\n", "names a colour"),
        ("number,name\n1,tree\none,hat\n", "'one' is not a whole number"),
        ("void\n", "no concept"),
    ):
        (tmp_path / "n.csv").write_text(text, encoding="utf-8")
        with pytest.raises(WrongUse, match=what) as error:
            read_class_names(tmp_path / "n.csv")
        assert "classes count from 0" in error.value.hint


def test_classes_without_names_and_other_numbers_of_them_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"the 6 classes of .*unnamed have no names") as e:
        labelled(folder, "unnamed")
    assert "--labeller-classes FILE" in e.value.hint
    (tmp_path / "few.txt").write_text("background\ntree\n")
    with pytest.raises(WrongUse, match=r"has 6 classes, .*few\.txt names 2"):
        labelled(folder, labeller_classes=tmp_path / "few.txt")
    (tmp_path / "twice.csv").write_text("number,name\n1,a\n1,b\n")
    with pytest.raises(WrongUse, match=r"twice\.csv: 1 is called both 'a' and 'b'"):
        labelled(folder, labeller_classes=tmp_path / "twice.csv")
    with pytest.raises(WrongUse, match="there is no file"):
        labelled(folder, labeller_classes=tmp_path / "none.txt")


def test_what_labels_no_pixels_is_refused(folder: Path) -> None:
    with pytest.raises(NDError, match=r"flat labels no pixels: it returns a tensor \(1, 6\)"):
        labelled(folder, "flat")
    with pytest.raises(NDError, match="labels no pixels: it returns dict"):
        scores_of({"boxes": torch.zeros(1)}, "net")


def test_options_of_a_labeller_need_one(folder: Path) -> None:
    with pytest.raises(WrongUse, match="brings its own transform, which --labeller-size cannot change"):
        labelled(folder, labeller_size="64")
    assert labelled(folder, "scaled", labeller_size="64").read_labels(0).maps.shape == (1, GRID, GRID)
    with pytest.raises(WrongUse, match="--labeller-size is for a labeller"):
        dissect_to_store(options(folder, None, labeller_size="64"), Console())


def test_photographs_without_a_labeller_are_refused_with_what_to_do(folder: Path) -> None:
    chosen = replace(options(folder, None), data=str(folder / "photographs" / "here"))
    with pytest.raises(WrongUse, match="holds images without labels") as e:
        dissect_to_store(chosen, Console())
    assert "--labeller NETWORK" in e.value.hint


def test_a_note_about_a_labeller_names_its_own_flag(folder: Path) -> None:
    told: list[str] = []

    class Listening(Console):
        def tell(self, text: str) -> None:
            told.append(text)

    chosen = options(folder, "scaled")
    label_images(chosen, open_photographs(folder / "photographs"), chosen.make_protocol(), CPU, Listening())
    assert [text for text in told if "the labeller: " in text and "--labeller-size" in text]


# Stores


def stored(path: Path) -> dict[str, np.ndarray]:
    """All numbers of a store."""
    found: dict[str, np.ndarray] = {}

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "iuf":
            found[name] = item[()]

    with h5py.File(path) as file:
        file.visititems(take)
    return found


def demand_same_numbers(a: Path, b: Path) -> None:
    first, second = stored(a), stored(b)
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name], err_msg=name)


class Stopping(Console):
    """Stops a run after so many batches."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stop(self) -> BaseException | None:
        self.left -= 1
        return KeyboardInterrupt() if self.left == 0 else None


def test_a_run_that_is_stopped_goes_on_with_the_labels_it_made(folder: Path, tmp_path: Path) -> None:
    chosen = options(folder, null=2, batch_size=4)
    dissect_to_store(chosen, Console(), output=tmp_path / "whole.nd.h5")
    part = tmp_path / "part.nd.h5"
    with pytest.raises(KeyboardInterrupt):
        dissect_to_store(chosen, Stopping(3), output=part)
    assert (tmp_path / ".part.nd.h5.saved" / "labels").is_file()
    dissect_to_store(chosen, Console(), output=part)
    demand_same_numbers(tmp_path / "whole.nd.h5", part)
    assert not (tmp_path / ".part.nd.h5.saved").exists()


def test_a_run_does_not_go_on_with_another_labeller(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        dissect_to_store(options(folder, batch_size=4), Stopping(3), output=tmp_path / "a.nd.h5")
    with pytest.raises(WrongUse, match="labels network"):
        dissect_to_store(options(folder, "coarse", batch_size=4), Console(), output=tmp_path / "a.nd.h5")


def test_shards_are_merged_with_the_labels_that_they_made(folder: Path, tmp_path: Path) -> None:
    chosen = options(folder, data="photographs", null=2, batch_size=4)
    dissect_to_store(chosen, Console(), output=tmp_path / "whole.nd.h5")
    target = tmp_path / "parts.nd.h5"
    for shard in ("1/2", "2/2"):
        dissect_to_store(chosen, Console(), output=target, shard=shard)
    folders = sorted(tmp_path.glob("parts.nd.h5.shard-*"))
    merge_to_store(folders, target, Options(device="cpu", workers=1), Console())
    demand_same_numbers(tmp_path / "whole.nd.h5", target)


def test_a_shard_with_damaged_labels_is_refused(folder: Path, tmp_path: Path) -> None:
    dissect_to_store(options(folder), Console(), output=tmp_path / "a.nd.h5", shard="1/1")
    [shard] = tmp_path.glob("a.nd.h5.shard-*")
    (shard / "labels").write_bytes(b"")
    with pytest.raises(NDError, match=r"labels in .* are damaged"):
        merge_to_store([shard], tmp_path / "a.nd.h5", Options(device="cpu", workers=1), Console())


def test_a_store_says_that_its_labels_are_a_networks(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.nd.h5"
    dissect_to_store(options(folder, colors=True, data="photographs"), Console(), output=path)
    with Store(path) as store:
        said = store.provenance["data"]
        assert said["labeller"]["spec"].endswith("nets.py:labeller")
        assert said["labeller"]["classes"] == [f"thing-{n}" for n in range(1, CLASSES + 1)]
        assert len(said["labeller"]["digest"]) == 64
        assert said["colors"] == "Benavente, Vanrell, Baldrich 2008"
        assert origin(store.provenance).data == "photographs, labels by labeller and names of colours"
        views = [store.layer(name) for name in store.layer_names]
        assert marks(views) == ["labels by labeller and names of colours, not by hand"]
        assert {store.concepts.category_of(row) for row in range(len(store.concepts))} == {"object", "color"}
    assert labels_line({"data": {"name": "x"}}) == ""


def test_a_store_is_found_again_unless_the_labeller_has_changed(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "nets.py"
    shutil.copy(folder / "nets.py", own)
    chosen = replace(options(folder), labeller=f"{own}:labeller")
    path = tmp_path / "a.nd.h5"
    assert not dissect_to_store(chosen, Console(), output=path).before
    assert dissect_to_store(chosen, Console(), output=path).before
    own.write_text(own.read_text().replace("9.0 *", "7.0 *"))
    with pytest.raises(NDError, match="exists"):
        dissect_to_store(chosen, Console(), output=path)


def test_every_view_says_that_labels_are_a_networks(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.nd.h5"
    dissect_to_store(options(folder), Console(), output=path)
    said = "labels by labeller, not by hand"
    views = [
        ["inspect", "-s", str(path), "--json"],
        ["inspect", "units", "-s", str(path), "--json"],
        ["inspect", "units:0", "-s", str(path), "--json"],
        ["concepts", "-s", str(path), "--json"],
        ["concepts", "thing-1", "-s", str(path), "--json"],
        ["export", "-s", str(path), "--format", "json"],
        ["report", "-s", str(path), "-o", str(tmp_path / "a.html")],
    ]
    for words in views:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        text = (tmp_path / "a.html").read_text() if words[0] == "report" else done.stdout
        assert said in text, words
    with Store(path) as store:
        views = [store.layer(name) for name in store.layer_names]
        assert said in "\n".join([*summary_lines(views[0]), *cautions(views)])


# Names of colours


def test_colours_are_named_without_any_labels(folder: Path) -> None:
    made = labelled(folder, None, "photographs", colors=True)
    assert [made.concepts.label(row) for row in range(11)] == list(COLORS)
    image = made.own.read(2).image
    cells = image.reshape(GRID, 2, GRID, 2, 3).mean((1, 3)).astype(np.uint8)
    np.testing.assert_array_equal(made.read_labels(2).maps[0], color_numbers(cells))
    area = dissected(folder, made).concept_counts.area.sum(0)
    assert area.sum() == IMAGES * GRID * GRID


def test_colours_stand_beside_labels_by_hand(folder: Path) -> None:
    by_hand = dissected(folder, open_dataset(folder / "data"))
    found = dissected(folder, labelled(folder, None, colors=True))
    np.testing.assert_array_equal(found.concept_counts.area[:, :CLASSES], by_hand.concept_counts.area)
    counts, expected = found.layers[0].counts, by_hand.layers[0].counts
    assert counts is not None
    assert expected is not None
    np.testing.assert_array_equal(counts.intersection[:, :, :CLASSES], expected.intersection)
    assert counts.intersection[:, :, CLASSES:].sum() == expected.area.sum()


def test_a_set_that_has_colours_keeps_them(tmp_path: Path, folder: Path) -> None:
    map_ = np.ones((GRID, GRID), np.uint16)
    write_broden(tmp_path / "data", [Picture(maps={"color": map_})], [Concept(1, "red-c", "color")])
    chosen = replace(options(folder, None, colors=True), data=str(tmp_path / "data"))
    with pytest.raises(WrongUse, match="labels of colours already"):
        label_images(chosen, open_dataset(tmp_path / "data"), chosen.make_protocol(), CPU, Console())


# Photographs


def test_photographs_of_any_size_in_any_folder(tmp_path: Path) -> None:
    for name, size in (("b/c/x.JPG", (40, 30)), ("a.png", (9, 70)), (".hidden/y.png", (8, 8)), ("b/._z.png", (8, 8))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (200, 30, 30)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    photographs = open_photographs(tmp_path)
    assert photographs.names == ("a.png", "b/c/x.JPG")
    assert photographs.read(1).image.shape == (30, 40, 3)
    assert len(photographs.concepts) == 0
    assert image_tensor(photographs.read(0)).shape == (1, 3, 70, 9)
    with pytest.raises(NDError, match="holds no images"):
        open_photographs(_empty(tmp_path))


@pytest.mark.parametrize("decode_in", ["threads", "processes"])
def test_photographs_of_several_sizes_are_labelled_each_as_alone(
    folder: Path, tmp_path: Path, decode_in: DecodeIn
) -> None:
    rng = np.random.default_rng(0)
    for i, size in enumerate([(32, 32), (48, 32), (48, 32), (16, 64), (32, 32)]):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        pixels[..., 0] = rng.choice(CLASSES + 1, (size[0] // 16, size[1] // 16)).repeat(16, 0).repeat(16, 1)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    chosen = replace(options(folder, colors=True), data=str(tmp_path))
    together, alone = (
        label_images(chosen, open_photographs(tmp_path), chosen.make_protocol(), CPU, Console()) for _ in range(2)
    )
    assert isinstance(together, MadeLabels)
    [batch] = Loader(together, chosen.make_protocol(), 2, decode_in=decode_in).batches(range(5), 5, skip_bad=False)
    labels = with_labels(batch, together, together.maker).labels
    for i in range(5):
        maps = alone.read_labels(i).maps
        np.testing.assert_array_equal(together.kept(i), maps)
        np.testing.assert_array_equal(labels.pixels[i, :, :2].T.reshape(2, GRID, GRID), maps)
        assert set(maps[0].ravel().tolist()) == set(together.own.read(i).image[..., 0].ravel().tolist())


def test_photographs_are_split_by_their_names(tmp_path: Path) -> None:
    for i in range(12):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    photographs = open_photographs(tmp_path)
    assert photographs.splits == tuple(split_by_name(name) for name in photographs.names)
    assert set(photographs.splits) == {"train", "val"}, "labels that a network made are held out as well"


def test_what_a_data_set_says_by_hand_is_not_used_and_that_is_said(folder: Path) -> None:
    told: list[str] = []

    class Listening(Console):
        def tell(self, text: str) -> None:
            told.append(text)

    chosen = options(folder)
    label_images(chosen, open_dataset(folder / "data"), chosen.make_protocol(), CPU, Listening())
    assert [text for text in told if "the labels of data are not used" in text]


def test_pixels_alone_are_labelled(folder: Path) -> None:
    """As a generator makes them: there is no data set."""
    made = labelled(folder, "labeller", "photographs", colors=True)
    [batch] = Loader(made, make_protocol(grid=str(GRID)), 1).batches(range(6), 6, skip_bad=False)
    alone = made.maker.labels(batch.pixels)
    for name, tensor in vars(with_labels(batch, made, made.maker).labels).items():
        np.testing.assert_array_equal(getattr(alone, name).numpy(), tensor.numpy(), name)


@pytest.mark.parametrize("labeller", ["labeller", "scaled"])
def test_labels_are_made_where_the_pixels_are(folder: Path, labeller: str) -> None:
    """On a GPU that is pretended: what is mixed with what lies on the host would be refused."""
    chosen = options(folder, labeller, colors=True)
    protocol, source = chosen.make_protocol(), open_photographs(folder / "photographs")
    on_host = labelled(folder, labeller, "photographs", colors=True)
    [batch] = Loader(on_host, protocol, 1).batches(range(5), 5, skip_bad=False)
    expected = with_labels(batch, on_host, on_host.maker)
    gpu = torch.device("cuda")
    with PretendedGpu():
        made = label_images(chosen, source, protocol, gpu, Console())
        there = batch.each(lambda pixels: pixels.to(gpu), lambda labels: labels.to(gpu))
        given = with_labels(there, made, made.maker)
        made.keep(2, on_host.kept(2))
        again = with_labels(there, made, made.maker)
        found = [given.labels.to("cpu"), again.labels.to("cpu")]
    for labels in found:
        for name, tensor in vars(expected.labels).items():
            np.testing.assert_array_equal(getattr(labels, name).numpy(), tensor.numpy(), name)
    np.testing.assert_array_equal(given.area.numpy(), expected.area.numpy())


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def test_a_record_that_is_not_whole_is_none(tmp_path: Path) -> None:
    maps = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
    for kind in (np.uint8, np.uint16):
        path = tmp_path / f"{np.dtype(kind)}"
        file = LabelFile(path, (2, 3, 4), kind)
        file.write(5, maps)
        file.write(2, maps + 1)
        assert [n for n in range(8) if file.read(n) is not None] == [2, 5]
        np.testing.assert_array_equal(LabelFile(path, (2, 3, 4), kind).read(5), maps)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        assert LabelFile(path, (2, 3, 4), kind).read(5) is None
        file.close()
