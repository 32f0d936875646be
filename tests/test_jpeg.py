"""JPEGs decoded a batch at a time, as a GPU does; here by the CPU's decoder of the same interface."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from broden_factory import Concept, Picture, write_broden
from PIL import Image

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.images import BadFile, decode_image
from ndissect.engine.data.jpeg import bare_jpeg, keep_jpeg
from ndissect.engine.passes import decoding
from ndissect.engine.passes.decoding import decode_together
from ndissect.engine.passes.loader import Loader
from ndissect.store.errors import NDError
from ndissect.store.protocol import make_protocol

CPU = torch.device("cpu")
SIZE = (40, 56)


def picture(**options: object) -> bytes:
    rng = np.random.default_rng(3)
    smooth = np.kron(rng.integers(0, 256, (5, 7, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(smooth).convert(str(options.pop("mode", "RGB"))).save(
        out, str(options.pop("kind", "JPEG")), **options
    )
    return out.getvalue()


def test_a_baseline_jpeg_is_kept_and_decodes_as_the_threads_decode_it() -> None:
    data = picture(quality=90)
    kept = keep_jpeg(data, "a.jpg", SIZE)
    assert kept.tobytes() == data
    (found,) = decode_together([kept], CPU)
    assert (found.shape, found.dtype) == ((3, *SIZE), torch.uint8)
    apart = np.abs(found.permute(1, 2, 0).numpy().astype(int) - decode_image(data, "a.jpg", SIZE))
    assert apart.max() <= 4, "decoders differ by rounding alone"


@pytest.mark.parametrize("options", [{"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}, {"kind": "PNG"}], ids=str)
def test_anything_else_is_decoded_by_the_threads(options: dict[str, object]) -> None:
    data = picture(**options)
    found = keep_jpeg(data, "a.jpg", SIZE)
    np.testing.assert_array_equal(found, decode_image(data, "a.jpg", SIZE))
    np.testing.assert_array_equal(decode_together([found], CPU)[0].permute(1, 2, 0).numpy(), found)


@pytest.mark.parametrize("cut", [0, 3, 10, 30, 100])
def test_a_header_that_breaks_off_is_a_bad_file(cut: int) -> None:
    with pytest.raises(BadFile):
        keep_jpeg(picture()[:cut], "a.jpg", SIZE)


def test_a_bare_jpeg_shows_the_same_picture_and_tells_nothing_else() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret place"
    data = picture(quality=85, exif=exif.tobytes(), comment=b"a secret word")
    assert b"secret" in data
    bare = bare_jpeg(data, SIZE)
    assert bare is not None
    assert b"secret" not in bare
    with Image.open(io.BytesIO(bare)) as image:
        assert not image.getexif()
        np.testing.assert_array_equal(np.asarray(image), decode_image(data, "a.jpg", SIZE))
    assert bare_jpeg(data, (41, 56)) is None
    assert bare_jpeg(data[:-2], SIZE) is None
    assert bare_jpeg(picture(kind="PNG"), SIZE) is None
    for cut in range(0, len(data) - 2, 7):
        bare_jpeg(data[:cut] + data[-2:], SIZE)  # whatever is missing in the middle, it ends


def test_torchcodec_decodes_where_it_is_installed_and_can(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [keep_jpeg(picture(quality=90), "a.jpg", SIZE)]
    made = ModuleType("torchcodec.decoders")
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", made)

    def chosen(decode: object) -> list[torch.Tensor]:
        decoding.decoder.cache_clear()
        monkeypatch.setattr(made, "decode_jpeg", decode, raising=False)
        return decode_together(images, CPU)

    def without_it(*given: object, **named: object) -> None:
        raise RuntimeError("built without a GPU")

    black = torch.zeros(3, 2, 2, dtype=torch.uint8)
    try:
        assert chosen(lambda sources, *, mode, device: [black] * len(sources))[0] is black
        assert chosen(without_it)[0].shape == (3, *SIZE), "torchvision's"
        monkeypatch.setattr(decoding, "_by_torchvision", without_it)
        with pytest.raises(NDError, match="nothing that is installed decodes JPEGs on cpu"):
            chosen(without_it)
    finally:
        decoding.decoder.cache_clear()


def test_a_wrong_size_is_a_bad_file() -> None:
    with pytest.raises(BadFile, match=r"index\.csv says"):
        keep_jpeg(picture(), "a.jpg", (41, 56))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six JPEGs among PNGs."""
    rng = np.random.default_rng(0)
    pictures = [Picture(maps={"object": rng.choice([0, 3], (8, 8)).astype(np.uint16)}) for _ in range(9)]
    folder = write_broden(tmp_path / "d", pictures, [Concept(3, "tree")], image_size=SIZE, grid=(8, 8))
    for number in range(6):  # the content counts, not the name
        (folder / "images" / "made" / f"{number:04}.png").write_bytes(picture(quality=70 + number))
    return folder


def batches(
    data: Path, jpeg_on: torch.device | None, *, skip_bad: bool = False
) -> list[tuple[list[int], list, object]]:
    loader = Loader(Broden(data), make_protocol(), 2, jpeg_on=jpeg_on)
    return [
        (b.images, [n for n, _ in b.bad], torch.cat(b.pixels)) for b in loader.batches(range(9), 4, skip_bad=skip_bad)
    ]


def test_batches_are_the_same_wherever_they_are_decoded(data: Path) -> None:
    for (images, bad, pixels), (mine, my_bad, others) in zip(batches(data, CPU), batches(data, None), strict=True):
        assert (images, bad) == (mine, my_bad)
        assert (pixels.int() - others.int()).abs().max() <= 4


def test_beside_one_that_cannot_be_decoded_the_others_are_as_ever(data: Path) -> None:
    sound = batches(data, CPU)
    broken = data / "images" / "made" / "0002.png"
    broken.write_bytes(broken.read_bytes()[:400] + b"\xff\xd9")  # it ends as a whole one does
    spoilt = batches(data, CPU, skip_bad=True)
    kept = [n for n, image in enumerate(sound[0][0]) if image in spoilt[0][0]]
    assert {0, 1, 3} <= set(spoilt[0][0])
    assert torch.equal(sound[0][2][kept][:2], spoilt[0][2][:2])
    assert torch.equal(sound[0][2][-1], spoilt[0][2][-1])


def test_a_jpeg_that_cannot_be_decoded_is_named_as_ever(data: Path) -> None:
    broken = data / "images" / "made" / "0002.png"
    broken.write_bytes(broken.read_bytes()[:400])
    with pytest.raises(NDError, match=r"1 of 9 images cannot be used: images/made/0002\.png"):
        batches(data, CPU)
    found = batches(data, CPU, skip_bad=True)
    assert [b[0] for b in found] == [[0, 1, 3], [4, 5, 6, 7], [8]]
    assert [b[1] for b in found] == [[2], [], []]
