"""Images of several sizes: resized to one they count as ever, and without that they are refused before the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cli
import numpy as np
import pytest
import torch
from broden_factory import edit_csv, read_csv, save_png
from dissecting import IMAGES, SIZE, write_data
from networks_factory import write_network
from PIL import Image
from store_factory import assert_same

from ndissect.engine.data.dataset import known_sizes
from ndissect.engine.data.formats import open_dataset, open_folder
from ndissect.engine.data.pack import pack
from ndissect.engine.data.subset import spread
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import Network, load_network
from ndissect.engine.passes import input_size
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.errors import WrongUse
from ndissect.store.protocol import make_protocol

NETWORK = '''
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(3)
        self.units = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.units.weight.data = torch.randint(-3, 4, self.units.weight.shape, generator=g).float()
        self.units.bias.data = torch.zeros(4)

    def forward(self, x):
        return self.units(x)


def resized(x, **how):
    images = x if x.ndim == 4 else x[None]
    out = F.interpolate(images.float(), **how)
    return out if x.ndim == 4 else out[0]


def fixed():
    """Gives every image as it was before each of its pixels was repeated."""
    return Net(), lambda x: resized(x, size=(32, 32))


def halved():
    return Net(), lambda x: resized(x, scale_factor=0.5)


def one_image():
    return Net(), lambda x: F.interpolate(x[None].float(), (32, 32))[0]


def failing():
    def transform(x):
        if x.shape[-1] == 64:
            raise ValueError("no image of 64 columns, please")
        return x.float()
    return Net(), transform
'''


def enlarge(data: Path, factors: Callable[[int], tuple[int, int]]) -> Path:
    """Repeat the pixels of image i so many times along its rows and columns."""
    for i, row in enumerate(read_csv(data / "index.csv")[1:]):
        rows, columns = factors(i)
        path = data / "images" / row[0]
        save_png(path, np.asarray(Image.open(path)).repeat(rows, 0).repeat(columns, 1))
        edit_csv(data / "index.csv", i, "ih", str(SIZE * rows))
        edit_csv(data / "index.csv", i, "iw", str(SIZE * columns))
    return data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_network(tmp_path, NETWORK)


def run(network: Network, data: Path, **changes: object) -> Outcome:
    dataset = open_dataset(data)
    size = known_sizes(dataset)[0].tolist()  # type: ignore[index]
    layers = [info for info in list_layers(network, tuple(size)) if info.name == "units"]
    settings = Settings(workers=2, top=4, **changes)  # type: ignore[arg-type]
    return dissect(network, dataset, layers, make_protocol(), settings, Progress())


@pytest.mark.parametrize("factory", ["fixed", "one_image"])
@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("packed", [False, True])
def test_images_that_reach_the_network_at_one_size_count_as_ever(
    data: Path, file: Path, factory: str, batch: int, packed: bool
) -> None:
    network = load_network(f"{file}:{factory}")
    before = run(network, data).dissection
    enlarge(data, lambda i: (1 + i % 2, 1 + i % 3))
    if packed:
        pack(open_folder(data))
    after = run(network, data, batch=batch).dissection
    assert_same(after.layers[0].counts, before.layers[0].counts)
    assert_same(after.layers[0].best, before.layers[0].best)
    assert_same(after.concept_counts, before.concept_counts)


def test_a_size_by_option_resizes_every_image(data: Path, file: Path) -> None:
    enlarge(data, lambda i: (1, 1 + i % 3))
    network = load_network(f"{file}:Net", size=(SIZE, SIZE))
    one, many = (run(network, data, batch=batch).dissection for batch in (1, 0))
    assert_same(one.layers[0].counts, many.layers[0].counts)


def test_a_transform_of_the_images_size_is_well_where_all_have_one(data: Path, file: Path) -> None:
    enlarge(data, lambda i: (2, 2))
    assert run(load_network(f"{file}:halved"), data).dissection.layers[0].counts is not None


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr("ndissect.engine.data.broden.Broden.read_image", read)


def test_several_sizes_are_refused_before_the_first_image(
    data: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarge(data, lambda i: (1, 1 + (i > 0) + (i > 3)))
    forbid_reading(monkeypatch)
    network = load_network(f"{file}:Net")
    with pytest.raises(WrongUse) as caught:
        run(network, data)
    listed = f"{IMAGES - 4} of 32 x 96, 3 of 32 x 64, 1 of 32 x 32"
    assert caught.value.message == f"images of 3 sizes reach {network.spec} ({listed}), all must have one"
    assert "--size HxW" in caught.value.hint


def test_the_demo_network_says_that_another_is_to_be_taken(data: Path) -> None:
    enlarge(data, lambda i: (2, 2 + i % 2))
    with pytest.raises(WrongUse, match="sizes reach demo") as caught:
        input_size.demand_one_size(load_network("demo"), open_dataset(data))
    assert "torchvision:resnet18" in caught.value.hint


def test_a_transform_that_leaves_several_sizes_is_refused_before_the_first_image(
    data: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarge(data, lambda i: (2, 2 + i % 2))
    forbid_reading(monkeypatch)
    with pytest.raises(WrongUse) as caught:
        run(load_network(f"{file}:halved"), data)
    assert "32 x 32, 32 x 48" in caught.value.message
    assert "halved" in caught.value.hint
    assert "Resize((224, 224))" in caught.value.hint


@pytest.mark.parametrize("batch", [0, 1])
def test_sizes_that_no_table_tells_are_refused_at_the_first_that_differs(
    data: Path, file: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    enlarge(data, lambda i: (1, 1 + (i > 5)))
    monkeypatch.setattr(input_size, "known_sizes", lambda _: None)
    with pytest.raises(WrongUse) as caught:
        run(load_network(f"{file}:Net"), data, batch=batch)
    assert "images of several sizes reach" in caught.value.message
    assert "32 x 32, 32 x 64" in caught.value.message


def test_what_a_transform_says_of_a_size_is_left_to_the_run(data: Path, file: Path) -> None:
    enlarge(data, lambda i: (1, 1 + (i == 7)))
    with pytest.raises(Exception, match="no image of 64 columns, please"):
        run(load_network(f"{file}:failing"), data)


def test_the_sizes_of_packs_and_parts(data: Path) -> None:
    enlarge(data, lambda i: (1, 1 + i % 3))
    dataset = open_dataset(data)
    sizes = known_sizes(dataset)
    assert sizes is not None
    assert sizes.tolist() == [[SIZE, SIZE * (1 + i % 3)] for i in range(IMAGES)]
    pack(open_folder(data))
    packed = known_sizes(open_dataset(data))
    assert packed is not None
    assert packed.tolist() == sizes.tolist()
    part = spread(dataset, 4)
    some = known_sizes(part)
    assert some is not None
    assert some.tolist() == [list(part.read(i).image.shape[:2]) for i in range(4)]


def test_a_preset_for_segmentation_takes_the_size_by_option() -> None:
    presets = pytest.importorskip("torchvision.transforms._presets")
    from ndissect.engine.networks.preprocess import make_preprocess

    preset = presets.SemanticSegmentation(resize_size=48)
    as_it_is, _ = make_preprocess(preset, "the preset")
    assert as_it_is.apply(torch.zeros(1, 3, 32, 64, dtype=torch.uint8)).shape[2:] == (48, 96)
    resized, _ = make_preprocess(preset, "the preset", size=(40, 40))
    assert resized.apply(torch.zeros(1, 3, 32, 64, dtype=torch.uint8)).shape[2:] == (40, 40)
    assert (resized.mean, resized.std) == (tuple(preset.mean), tuple(preset.std))


@pytest.mark.parametrize("command", ["dissect", "sweep", "bench"])
def test_every_command_refuses_in_two_lines(data: Path, file: Path, command: str) -> None:
    enlarge(data, lambda i: (1, 1 + i % 2))
    done = cli.nd(command, f"{file.name}:Net", "-l", "units", "-d", str(data), "--device", "cpu", folder=file.parent)
    assert done.returncode == 2
    last = "\n".join(done.stderr.splitlines()[-2:])
    cli.two_lines(last, f"{IMAGES // 2 + 1} of 32 x 32, {IMAGES // 2} of 32 x 64", "--size HxW")
