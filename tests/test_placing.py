"""Maps lie where the labels are, also where the network pads or crops the image on the way; else it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from broden_factory import Concept, Picture, write_broden
from networks_factory import write_network
from torch import nn

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.geometry.extents import trace_extents
from ndissect.engine.machine.progress import Progress
from ndissect.engine.networks.layers import list_layers, taps_of
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.passes.forward import Forward
from ndissect.engine.run.dissect import dissect
from ndissect.engine.run.settings import Outcome, Settings
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol
from ndissect.store.scores import label_units
from ndissect.store.upsampling import half_pixel_positions, make_axis

NETWORKS = '''
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import functional as TF


class Red(nn.Module):
    """Unit 0 of c is high exactly where the image is red; c sees what before makes of it, then comes after."""

    def __init__(self, before=lambda x: x, after=lambda x: x):
        super().__init__()
        self.c, self.out = nn.Conv2d(3, 2, 1, bias=False), nn.Identity()
        self.before, self.after = before, after
        with torch.no_grad():
            self.c.weight.copy_(torch.tensor([[1.0, -1, -1], [-1, -1, 1]]).view(2, 3, 1, 1))

    def forward(self, x):
        self.size = x.shape[-2:]
        return self.out(self.after(self.c(self.before(x.float() / 255))))


def red(): return Red()
def right_below(): return Red(lambda x: F.pad(x, (0, -x.shape[-1] % 96, 0, -x.shape[-2] % 96)))
def all_sides(): return Red(lambda x: F.pad(x, (20, 12, 4, 36)))
def reflected(): return Red(lambda x: F.pad(x, (20, 12, 4, 36), mode="reflect"))
def zero_pad(): return Red(nn.ZeroPad2d(16))
def blank_windows():
    net = Red()
    net.c.padding = (16, 16)
    return net
def pad_and_pool(): return Red(lambda x: F.avg_pool2d(F.pad(x, (0, 32, 0, 32)), 2))
def pad_and_resize(): return Red(lambda x: F.interpolate(F.pad(x, (0, 32, 0, 32)), (64, 64), mode="bilinear"))
def cropped(): return Red(lambda x: x[..., 8:-8, 8:-8])
def cropped_left(): return Red(lambda x: x[:, :, 4:, 8:])
def narrowed(): return Red(lambda x: x.narrow(2, 8, 48).narrow(3, 8, 48))
def negative_pad(): return Red(lambda x: F.pad(x, (-8, -8, -8, -8)))
def center_crop(): return Red(lambda x: TF.center_crop(x, [48, 48]))
def resized(): return Red(lambda x: F.interpolate(x, size=(40, 40), mode="bilinear", align_corners=False))
def back_again(): return Red(lambda x: F.pad(x, (0, 32, 0, 32)), lambda x: x[..., :64, :64])
def pad_left_back(): return Red(lambda x: F.pad(x, (16, 16, 16, 16)), lambda x: x[..., 16:80, 16:80])
def twice_flipped(): return Red(lambda x: x.flip(-1), lambda x: x.flip(-1))

def flipped(): return Red(lambda x: x.flip(-1))
def upside_down(): return Red(lambda x: torch.flip(x, (2,)))
def turned(): return Red(lambda x: x.transpose(2, 3))
def rolled(): return Red(lambda x: x.roll(32, -1))
def gathered(): return Red(lambda x: x[..., torch.arange(63, -1, -1)])


class Paste(Red):
    """Pastes the image into a larger one, as torchvision's detectors do; this is not followed."""

    def forward(self, x):
        large = x.new_zeros((len(x), 3, 128, 128), dtype=torch.float32)
        large[:, :, :64, :64] = x / 255.0
        return self.c(large)


class InPlace(Red):
    def forward(self, x):
        x = x.float()
        x[:] = x.flip(-1)
        return self.c(x)
'''
SIZE, GRID, IMAGES = 64, 32, 24


def scenes(height: int = SIZE, width: int = SIZE) -> list[Picture]:
    """A red square, or a blue one, on dark noise."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(IMAGES):
        pixels = rng.integers(0, 90, (height, width, 3)).astype(np.uint8)
        y, x = (int(rng.integers(0, n // 2)) for n in (height, width))
        mask = np.zeros((height, width), bool)
        mask[y : y + 21, x : x + 21] = True
        pixels[mask] = [40, 40, 40]
        pixels[mask, 0 if i % 2 else 2] = rng.integers(190, 230, int(mask.sum()))
        found.append(Picture({"color": mask[::2, ::2].astype(np.uint16) * (1 + i % 2)}, pixels=pixels))
    return found


def write(folder: Path, height: int = SIZE, width: int = SIZE) -> Path:
    concepts = [Concept(1, "blue-c", "color"), Concept(2, "red-c", "color")]
    return write_broden(folder, scenes(height, width), concepts, grid=(height // 2, width // 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("networks"), NETWORKS)


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(
    spec: str,
    data: Path,
    layer: str = "c",
    protocol: str = "netdissect",
    progress: Progress | None = None,
    **more: bool,
) -> Outcome:
    network, dataset = load_network(spec), open_dataset(data)
    infos = [i for i in list_layers(network, dataset.read(0).image.shape[:2]) if i.name == layer]
    q = "0.05" if protocol != "pnas2020" else "0.06"
    chosen = make_protocol(protocol, q=q)
    return dissect(network, dataset, infos, chosen, Settings(workers=1, top=3, **more), progress or Progress())


def iou(outcome: Outcome) -> float:
    """Of unit 0 with red."""
    assert outcome.dissection is not None
    label, value = label_units(outcome.dissection.layers[0].best)
    assert outcome.dissection.concepts.name[label[0]] == "red-c"
    return float(value[0])


PADDED = "right_below all_sides reflected zero_pad blank_windows"
CROPPED = "cropped cropped_left narrowed negative_pad center_crop"


@pytest.mark.parametrize("protocol", ["netdissect", "cvpr2017", "pnas2020"])
def test_a_padded_image_gives_the_counts_of_the_image_itself(file: Path, data: Path, protocol: str) -> None:
    """What lies outside of the image takes no part in thresholds, counts and top images."""
    plain = run(f"{file}:red", data, protocol=protocol)
    assert iou(plain) > 0.75
    for name in PADDED.split():
        padded = run(f"{file}:{name}", data, protocol=protocol)
        assert padded.marks == ()
        a, b = (outcome.dissection.layers[0] for outcome in (plain, padded))
        assert np.array_equal(a.counts.intersection, b.counts.intersection), name
        assert np.array_equal(a.counts.area, b.counts.area), name
        assert np.array_equal(a.statistics.threshold, b.statistics.threshold), name
        assert a.map_size == b.map_size == (SIZE, SIZE)
        assert np.array_equal(a.axes[0].positions, b.axes[0].positions)
        assert np.array_equal(a.axes[1].positions, b.axes[1].positions)
        assert np.array_equal(a.top.peak, b.top.peak)


@pytest.mark.parametrize("name", CROPPED.split())
def test_what_a_cropped_map_shows_lies_where_it_was(file: Path, data: Path, name: str) -> None:
    """Outside of it nothing is seen, so that the IoU is less than that of the whole image, and far above stretched."""
    notes = Notes()
    found = run(f"{file}:{name}", data, protocol="netdissect", progress=notes)
    assert iou(found) > 0.5
    positions = found.dissection.layers[0].axes[1].positions
    assert positions[1] - positions[0] == 0.5
    assert positions[0] == 3.75
    assert any("cut off at the left" in note for note in notes.notes)


@pytest.mark.parametrize("name", ["resized", "pad_and_resize", "pad_and_pool"])
def test_maps_that_were_resized_are_placed_as_well_as_their_cells_allow(file: Path, data: Path, name: str) -> None:
    assert iou(run(f"{file}:{name}", data)) > 0.75


@pytest.mark.parametrize("name", ["back_again", "pad_left_back", "twice_flipped"])
def test_padding_and_flips_that_are_undone_leave_the_counts_as_they_were(file: Path, data: Path, name: str) -> None:
    notes = Notes()
    a, b = run(f"{file}:red", data, "out"), run(f"{file}:{name}", data, "out", progress=notes)
    assert np.array_equal(a.dissection.layers[0].counts.intersection, b.dissection.layers[0].counts.intersection)
    assert notes.notes == []


def test_images_that_are_not_square_are_padded_at_one_side(file: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "wide", 48, 96)
    a, b = run(f"{file}:red", data), run(f"{file}:right_below", data)
    assert np.array_equal(a.dissection.layers[0].counts.intersection, b.dissection.layers[0].counts.intersection)
    assert b.dissection.layers[0].map_size == (48, 96)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flipped", "left and right are swapped"),
        ("upside_down", "top and bottom are swapped"),
        ("turned", "rows and columns are swapped"),
        ("rolled", "of the image's width comes back at"),
        ("gathered", "left and right are swapped"),
        ("Paste", "of the image's height comes back at"),
        ("InPlace", "left and right are swapped"),
    ],
)
def test_maps_whose_place_is_not_known_are_refused_or_marked(file: Path, data: Path, name: str, said: str) -> None:
    with pytest.raises(NDError, match=r"^the layer c has maps that do not lie on the image") as caught:
        run(f"{file}:{name}", data)
    assert said in caught.value.message
    assert "--anyway" in caught.value.hint
    marks = run(f"{file}:{name}", data, anyway=True).marks
    assert [(mark.layer, mark.kind) for mark in marks] == [("c", "placement")]
    assert said in marks[0].sentence


def test_what_was_corrected_is_told_and_kept_in_the_provenance(file: Path, data: Path) -> None:
    notes = Notes()
    outcome = run(f"{file}:right_below", data, progress=notes)
    (note,) = notes.notes
    assert note.startswith("c: ")
    assert "32 pixels added at the bottom, 32 pixels added at the right" in note
    assert "64 x 64 of its 96 x 96 samples" in note
    assert outcome.notes == (note,)


# What ordinary networks do is no padding of the image


def whole(module: nn.Module, size: tuple[int, int] = (64, 64)) -> dict[str, bool | str]:
    """Of each child: whether its map shows exactly the image, or why that is unknown."""
    x = torch.zeros(1, 3, *size)
    found = trace_extents(module.eval(), x, [name for name, _ in module.named_children()])
    return {name: e if isinstance(e, str) else all(axis.whole for axis in e) for name, e in found.items()}


def same_padded(k: int, stride: int, mode: str = "constant") -> nn.Module:
    """A convolution with TensorFlow's SAME padding, made by F.pad."""

    class Same(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pads = []
            for n in (x.shape[-1], x.shape[-2]):
                total = max((-(-n // stride) - 1) * stride + k - n, 0)
                pads += [total // 2, total - total // 2]
            return super().forward(F.pad(x, pads, mode=mode))

    return Same(3, 3, k, stride)


@pytest.mark.parametrize("size", [(64, 64), (63, 50), (33, 47)])
def test_padding_that_the_next_window_takes_in_is_that_windows_own(size: tuple[int, int]) -> None:
    chain = nn.Sequential(
        *(same_padded(k, stride) for k in (1, 2, 3, 5, 7) for stride in (1, 2)),
    )  # fmt: skip
    assert set(whole(chain, size).values()) == {True}
    for pad, window in (
        (nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3)),
        (nn.ReflectionPad2d(3), nn.Conv2d(3, 3, 7)),
        (nn.ReplicationPad2d(4), nn.Conv2d(3, 3, 9)),
        (nn.ZeroPad2d(3), nn.Conv2d(3, 3, 7, 2)),
        (nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2)),
        (nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1)),
        (nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(3, 3, 4, 2)),
        (nn.ReflectionPad2d(2), nn.Conv2d(3, 3, 3, dilation=2)),
    ):
        found = whole(nn.Sequential(pad, window), size)
        assert found == {"0": False, "1": True}, (pad, window, found)


def test_windows_with_their_own_padding_or_without_any_are_placed_as_ever() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 3, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3),
        nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(3, 3, 4, 2, 1), nn.Conv2d(3, 3, 3, padding=2),
        nn.PixelUnshuffle(2), nn.PixelShuffle(2), nn.AdaptiveAvgPool2d(5),
    )  # fmt: skip
    assert set(whole(module, (96, 80)).values()) == {True}


class UNet(nn.Module):
    """Pads to a multiple, halves, enlarges, and crops its output back: maps inside show more than the image."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep, self.up, self.out = (
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.Conv2d(4, 4, 3, 2, 1),
            nn.Identity(),
            nn.Identity(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % 32, 0, -h % 32))
        fine = self.down(x)
        up = self.up(torch.cat([F.interpolate(self.deep(fine), size=fine.shape[2:]), fine], 1))
        return self.out(F.interpolate(up, scale_factor=2)[..., :h, :w])


def test_a_network_that_pads_to_a_multiple_and_crops_its_output_back() -> None:
    x = torch.zeros(1, 3, 80, 50)
    found = trace_extents(UNet().eval(), x, ["down", "deep", "up", "out"])
    for name in ("down", "deep", "up"):
        rows, cols = found[name]
        assert (rows.low, rows.high, cols.low, cols.high) == (0, 96, 0, 64), name
    assert all(e.whole for e in found["out"])


ORDINARY = (
    "resnet18 alexnet squeezenet1_0 squeezenet1_1 densenet121 googlenet mobilenet_v2 mobilenet_v3_small"
    " efficientnet_b0 shufflenet_v2_x0_5 regnet_y_400mf mnasnet0_5"
)


@pytest.mark.parametrize("name", ORDINARY.split())
def test_ordinary_networks_are_placed_over_the_whole_image_in_every_layer(name: str) -> None:
    network = load_network(f"torchvision:{name}@none")
    x = torch.zeros(1, 3, 128, 128)
    infos = [i for i in list_layers(network, (128, 128)) if i.dissectable]
    found = trace_extents(network.module, x, [i.name for i in infos], taps_of(infos))
    assert {n: e for n, e in found.items() if isinstance(e, str) or not all(axis.whole for axis in e)} == {}


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "convnext_tiny"])
def test_random_networks_are_not_refused_for_what_they_see_of_the_image(name: str, tmp_path: Path) -> None:
    """Their deep layers see most of the image at once: what comes back has no clear place, and is not judged."""
    from ndissect.engine.geometry.map_alignment import align_map
    from ndissect.engine.geometry.responses import respond
    from ndissect.engine.networks.capture import Capture

    network = load_network(f"torchvision:{name}@none")
    infos = [i for i in list_layers(network, (128, 128)) if i.dissectable][::6]
    names = [i.name for i in infos]
    image = torch.from_numpy(scenes(128, 128)[1].pixels).permute(2, 0, 1)[None]
    inputs = network.preprocess.apply(image)
    with Capture(network.module, names, taps_of(infos)) as capture:

        def maps(x: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
            capture.run(network.preprocess.apply(torch.cat(list(x))))
            return {n: capture[n] for n in names}

        responses, together = respond(maps, image, names), respond(maps, image, names, together=True)
    for n in names:  # faster, and the same but for rounding
        for a, b in zip(sum(responses[n], ()), sum(together[n], ()), strict=True):
            np.testing.assert_allclose(a.place, b.place, atol=1e-3)
            np.testing.assert_allclose(a.width, b.width, atol=1e-3)
            assert a.clear == b.clear
    extents = trace_extents(network.module, inputs, names, taps_of(infos))
    size = tuple(inputs.shape[-2:])
    faults = {i.name: align_map(extents[i.name], responses[i.name], i.map_size, size).fault for i in infos}
    assert {n: fault for n, fault in faults.items() if fault} == {}


def test_images_are_tried_one_after_the_other_where_memory_does_not_suffice_for_several(
    file: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    whole = Forward.maps

    def small(forward: Forward, images: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        tried.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return whole(forward, images)

    monkeypatch.setattr(Forward, "maps", small)
    with pytest.raises(NDError, match="do not lie on the image"):
        run(f"{file}:flipped", data)
    assert [n for n in tried if n > 2] == [9]
    assert tried[-17:] == [1] * 17


def test_positions_of_a_part_of_the_image() -> None:
    part = (Fraction(-1, 4), Fraction(5, 4))  # a quarter of the image was added at either end
    found = half_pixel_positions(6, 8, part)
    assert found == [Fraction(-3, 2) + 2 * i for i in range(6)]
    axis = make_axis("half-pixel-zero", 6, 8, part=part, kept=slice(1, 5))
    assert axis.positions.tolist() == [0.5, 2.5, 4.5, 6.5]
    assert make_axis("half-pixel", 4, 8).positions.tolist() == axis.positions.tolist()
