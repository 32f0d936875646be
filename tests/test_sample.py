"""``nd sample``: the samples of a generator's store, drawn again from nothing but their numbers."""

from __future__ import annotations

from pathlib import Path

import cli
import numpy as np
import planted_generator as planted
import pytest
import torch
from PIL import Image

from ndissect.engine.experiments.drawn_samples import open_sampler
from ndissect.engine.experiments.generated import GeneratorRequest, open_generated
from ndissect.engine.experiments.picture_files import sheet
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.latents import NormalLatents
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import WrongUse

HERE = Path(__file__).parent
SAMPLES, SEED = 24, 5
LABELLER = f"{HERE / 'planted_generator.py'}:labeller"

WEIGHTED = """
import torch
from torch import nn


class Net(nn.Module):
    z = 4
    generator = True
    range = (0.0, 1.0)

    def __init__(self):
        super().__init__()
        self.layer = nn.ConvTranspose2d(4, 3, 8)
        nn.init.constant_(self.layer.weight, 0.5)

    def forward(self, z):
        return torch.sigmoid(self.layer(z[:, :, None, None]))


def network():
    return Net()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the planted generator, with latents of a seed of their own."""
    path = tmp_path_factory.mktemp("sample") / "planted.nd.h5"
    network = f"{HERE / 'planted_generator.py'}:generator"
    options = Options(
        network=network,
        generator=True,
        labeller=LABELLER,
        samples=SAMPLES,
        seed=SEED,
        quantile="0.6",
        layers=("layer",),
    )
    dissect_to_store(options, Console(), output=path)
    return path


def plain(numbers: list[int]) -> np.ndarray:
    """(n, H, W, 3) uint8: pictures by the network itself."""
    drawn = planted.generator()(torch.from_numpy(NormalLatents((16,), SEED).of(numbers)))
    return (255 * drawn).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def test_a_sample_is_the_picture_that_was_dissected(store: Path) -> None:
    with open_sampler(GeneratorRequest(store), Console()) as sampler:
        drawn = sampler.pictures([17, 3])
    assert (drawn == plain([17, 3])).all()
    with open_generated(GeneratorRequest(store), Console()) as generated:
        assert (generated.samples.dataset.read(17).image == drawn[0]).all()  # of which thumbnails are made


def test_a_sample_that_is_not_there_is_refused(store: Path) -> None:
    with open_sampler(GeneratorRequest(store), Console()) as sampler, pytest.raises(WrongUse, match="0 to 23"):
        sampler.pictures([24])


def test_the_command_draws_a_sheet_and_writes_the_latents(store: Path) -> None:
    folder = store.parent
    words = ("sample", store.name, "3-5", "17", "-o", "x.png", "--latents", "z.npy")
    told = cli.json_of(*words, folder=folder)
    assert (told["samples"], told["of"], told["path"]) == ([3, 4, 5, 17], SAMPLES, "x.png")
    assert (np.asarray(Image.open(folder / "x.png")) == sheet(plain([3, 4, 5, 17]))).all()
    assert (np.load(folder / "z.npy") == NormalLatents((16,), SEED).of([3, 4, 5, 17])).all()
    cli.failed(cli.nd(*words, folder=folder), 2, "exists")


def test_all_latents_are_written_where_no_sample_is_named(store: Path, tmp_path: Path) -> None:
    with open_sampler(GeneratorRequest(store), Console()) as sampler:
        sampler.write_latents(tmp_path / "all.npy", range(sampler.count))
    assert (np.load(tmp_path / "all.npy") == NormalLatents((16,), SEED).of(range(SAMPLES))).all()


def test_other_weights_than_those_of_the_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(WEIGHTED)
    options = Options(network=f"{tmp_path / 'net.py'}:network", labeller=LABELLER, samples=8, layers=("layer",))
    dissect_to_store(options, Console(), output=tmp_path / "x.nd.h5")
    (tmp_path / "net.py").write_text(WEIGHTED.replace("0.5)", "0.75)"))
    with pytest.raises(WrongUse, match="weights"), open_sampler(GeneratorRequest(tmp_path / "x.nd.h5"), Console()):
        pass
    anyway = GeneratorRequest(tmp_path / "x.nd.h5", None, Options(anyway=True))
    with open_sampler(anyway, Console()) as sampler:
        assert sampler.pictures([0]).shape == (1, 8, 8, 3)


def test_a_store_of_no_generator_is_refused(tmp_path: Path) -> None:
    folder = cli.workplace(tmp_path)
    store = next(folder.glob("*.nd.h5"))
    with pytest.raises(WrongUse, match="no generator"), open_sampler(GeneratorRequest(store), Console()):
        pass
