"""What each unit adds to a class's score: equal to hooks that set it to zero, whichever way it was computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from class_factory import write_folders, write_network
from PIL import Image
from why_networks import CLASSES, IMAGES, UNITS, lost_by_hooks, picture, write_all

from ndissect.engine.experiments.classified import Classified, open_classified
from ndissect.engine.experiments.effect_request import EffectRequest
from ndissect.engine.experiments.explain import explain, explain_named, images_of
from ndissect.engine.experiments.explanation import MeanOfImages
from ndissect.engine.experiments.named_images import check_named, number_in, read_image
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError, WrongUse

#: The 97.5 % point of Student's t with 3 degrees of freedom.
T_OF_3 = 3.182


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_all(tmp_path_factory.mktemp("why"))


@contextmanager
def opened(folder: Path, factory: str) -> Iterator[Classified]:
    with open_classified(request_of(folder, factory), Console()) as c:
        yield c


def request_of(folder: Path, factory: str) -> EffectRequest:
    options = Options(data=str(folder / "small"), device="cpu", workers=1)
    return EffectRequest(network=f"{folder / 'net.py'}:{factory}", options=options, layer="units")


def by_hooks(folder: Path, factory: str, path: Path, wanted: int, versus: int | None = None) -> np.ndarray:
    """What each unit of ``units`` adds in an image file, by plain PyTorch."""
    network = load_network(f"{folder / 'net.py'}:{factory}")
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
    against = torch.zeros(3, dtype=torch.float64)
    against[wanted] = 1
    if versus is not None:
        against[versus] -= 1
    return lost_by_hooks(network.module, "units", network.preprocess(pixels), lambda scores: scores[0] @ against)


@pytest.mark.parametrize("factory", ["linear", "bent"])
@pytest.mark.parametrize("versus", [None, 2])
def test_contributions_equal_hooks_that_set_the_channel_to_zero(folder: Path, factory: str, versus: int | None) -> None:
    path = folder / "green.png"
    with opened(folder, factory) as c:
        e = explain(c, [path], class_name="green", versus=None if versus is None else CLASSES[versus])
    expected = by_hooks(folder, factory, path, 1, versus)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(e.contributions, expected, atol=1e-5)


def test_a_linear_head_is_exact_and_sums_to_the_score(folder: Path) -> None:
    with opened(folder, "linear") as c:
        e = explain(c, [folder / "red.png", folder / "blue.png"])
        one = explain(c, [folder / "red.png"], versus="green" if _predicted(c, folder) != 1 else "blue")
    assert e.exact
    assert e.how == "linear head"
    assert e.contributions.sum() + e.bias == pytest.approx(e.score, abs=1e-5)
    assert one.contributions.sum() + one.bias == pytest.approx(one.score, abs=1e-5)
    assert one.images[0].explained == one.images[0].predicted


def _predicted(c: Classified, folder: Path) -> int:
    return explain(c, [folder / "red.png"]).images[0].predicted


def test_what_is_not_linear_is_said_not_to_be(folder: Path) -> None:
    with opened(folder, "bent") as c:
        e = explain(c, [folder / "red.png"])
    assert not e.exact
    assert e.how in ("tail", "network")
    assert np.isnan(e.bias)
    assert np.isnan(e.gap)


def test_fast_is_activation_times_gradient(folder: Path) -> None:
    path = folder / "red.png"
    with opened(folder, "bent") as c:
        e = explain(c, [path], class_name="red", fast=True)
        module = c.network.module
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
        maps = module.units(c.network.preprocess(pixels)).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(module.scores(module.then(maps).mean((2, 3)))[0, 0], maps)
    assert e.how == "gradient"
    assert not e.exact
    np.testing.assert_allclose(e.contributions, (maps * gradient).sum((0, 2, 3)).detach(), atol=1e-5)
    with opened(folder, "linear") as c:
        exact, fast = (explain(c, [path], class_name="red", fast=fast) for fast in (False, True))
    np.testing.assert_allclose(fast.contributions, exact.contributions, atol=1e-5)


def test_where_no_gradient_leads_back_it_is_said(folder: Path) -> None:
    with opened(folder, "sealed") as c, pytest.raises(NDError, match="no gradient leads") as error:
        explain(c, [folder / "red.png"], fast=True)
    assert "--fast" in error.value.hint


def test_a_class_that_one_unit_decides_is_explained_by_it(tmp_path: Path) -> None:
    spec, images = write_network(tmp_path), write_folders(tmp_path / "images", {"green": [1, 1], "blue": [2]})
    request = EffectRequest(network=f"{spec}named", layer="units", images=str(images))
    with open_classified(request, Console()) as c:
        e = explain(c, images_of(c, "green"), class_name="green")
    assert e.shares == pytest.approx([0, 1, 0], abs=1e-6)
    assert e.low[1] > 0
    assert not e.low[[0, 2]].any()


def test_a_class_is_explained_by_the_mean_of_its_images(folder: Path) -> None:
    with opened(folder, "linear") as c:
        numbers = images_of(c, "green")
        e = explain(c, numbers, class_name="green")
        alone = np.stack([explain(c, [n], class_name="green").contributions for n in numbers])
    assert numbers == [1, 4, 7, 10]
    assert e.images[0].name == f"data:{c.dataset.names[1]}"
    assert {image.truth for image in e.images} == {1}
    np.testing.assert_allclose(e.contributions, alone.mean(0), atol=1e-7)
    half = T_OF_3 * alone.std(0, ddof=1) / 2
    assert (e.high - e.low >= 2 * half * 0.99).all()  # wider where a single image decides
    assert ((e.low <= e.contributions) & (e.contributions <= e.high)).all()


@pytest.mark.parametrize(("images", "t"), [(30, 2.045), (1000, 1.998)])
def test_intervals_over_images_are_those_of_student(images: int, t: float) -> None:
    values = np.random.default_rng(0).normal(3, 2, (images, 4))
    mean = MeanOfImages(images)
    for start in range(0, images, 7):
        mean.add(values[start : start + 7])
    middle, low, high = mean.mean()
    np.testing.assert_allclose(middle, values.mean(0))
    expected = t * values.std(0, ddof=1) / np.sqrt(images)
    np.testing.assert_allclose(high - low, 2 * expected, rtol=0.3)
    np.testing.assert_allclose((high + low) / 2, middle)


def test_images_of_several_sizes_are_explained_each(folder: Path, tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.fromarray(picture(0, 1, 8)).save(small)
    Image.fromarray(picture(2, 2, 24)).save(large)
    for factory in ("linear", "bent"):
        with opened(folder, factory) as c:
            e = explain(c, [small, 3, large], class_name="red")
        assert [closeup.maps.shape for closeup in e.closeups] == [(UNITS, n, n) for n in (4, 8, 12)]
        for path, closeup in ((small, e.closeups[0]), (large, e.closeups[2])):
            np.testing.assert_allclose(closeup.contributions, by_hooks(folder, factory, path, 0), atol=1e-5)


def test_dead_units_add_nothing(folder: Path) -> None:
    with opened(folder, "dead") as c:
        e = explain(c, [folder / "red.png"])
    assert not e.contributions.any()
    assert e.exact
    assert np.isnan(e.shares).all()


def test_an_image_of_one_pixel_is_explained(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (200, 10, 10)).save(tmp_path / "dot.png")
    with opened(folder, "linear") as c:
        e = explain(c, [tmp_path / "dot.png"])
    assert e.closeups[0].maps.shape == (UNITS, 1, 1)
    assert e.exact


def test_images_that_say_no_class_are_those_predicted_so(folder: Path) -> None:
    request = request_of(folder, "linear")
    files = EffectRequest(
        network=request.network, options=request.options, layer="units", images=str(folder / "red.png")
    )
    with open_classified(files, Console()) as c:
        assert c.truth_from == "prediction"
        predicted = c.classes.names[explain(c, [0]).images[0].predicted]
        assert images_of(c, predicted) == [0]
        with pytest.raises(WrongUse, match="is predicted as"):
            images_of(c, next(name for name in CLASSES if name != predicted))


def test_images_are_named_as_files_or_of_the_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    request = request_of(folder, "linear")
    of_data = explain_named(request, ["data:0000.png", "red.png"], Console(), class_name="red")
    assert [image.truth for image in of_data.images] == [0, -1]
    everything = explain_named(request, [], Console(), class_name="red")
    assert len(everything.images) == IMAGES // 3
    one = explain_named(request, ["red.png"], Console())
    assert not any("prediction" in note for note in one.notes)
    with pytest.raises(WrongUse, match="others are named"):
        explain_named(EffectRequest(images="small"), ["red.png"], Console())


def test_wrong_names_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="is an address"):
        check_named(["https://example.org/a.png"])
    with pytest.raises(WrongUse, match="is a folder"):
        check_named([str(tmp_path)])
    with pytest.raises(WrongUse, match="there is no image file"):
        check_named([str(tmp_path / "none.png")])
    with pytest.raises(WrongUse, match="no image by its name"):
        check_named([str(folder / "net.py")])
    with opened(folder, "linear") as c:
        with pytest.raises(WrongUse, match="is called '0003"):
            number_in(c.dataset, "0003.pgn")
        with pytest.raises(WrongUse, match="nearest"):
            explain(c, [0], class_name="gren")
        with pytest.raises(WrongUse, match="are both green"):
            explain(c, [0], class_name="green", versus="green")
        itself = c.classes.names[explain(c, [0]).images[0].predicted]
        with pytest.raises(WrongUse, match="is predicted as"):
            explain(c, [0], versus=itself)


def test_files_that_are_no_images_are_told(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    with pytest.raises(NDError, match="not a readable image"):
        read_image(tmp_path / "text.png")
    Image.new("RGB", (200, 100)).save(tmp_path / "large.png")
    with pytest.raises(NDError, match="100 x 200 pixels, more than") as error:
        read_image(tmp_path / "large.png", 10_000)
    assert "--max-pixels" in error.value.hint


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    left = Image.new("RGB", (40, 20))
    left.paste((255, 255, 255), (0, 0, 20, 20))
    left.save(tmp_path / "turned.jpg", exif=exif)
    upright = read_image(tmp_path / "turned.jpg")
    assert upright.shape == (40, 20, 3)
    assert upright[:15].mean() > 240
    assert upright[25:].mean() < 15


def test_a_network_without_classes_is_refused(folder: Path) -> None:
    with pytest.raises(NDError, match="class scores"):
        explain_named(request_of(folder, "generator"), [str(folder / "red.png")], Console())
