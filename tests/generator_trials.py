"""The small generators of generator_networks.py in a file, and what tests make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from generator_networks import NETWORKS
from networks_factory import write_network

from ndissect.engine.networks.generators import Generator, make_generator
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.generated import draw
from ndissect.engine.run.options import Options

CPU = torch.device("cpu")
PLANTED = Path(__file__).parent / "planted_generator.py"


def written(folder: Path) -> Path:
    """The file of the generators, in ``folder``."""
    write_network(folder, NETWORKS, "nets.py")
    return folder / "nets.py"


def made(nets: Path, name: str, **how: object) -> Generator:
    return make_generator(load_network(f"{nets}:{name}"), **how)


def options(nets: Path, name: str, **more: object) -> Options:
    """Of a dissection of a few samples."""
    how = {"layers": ("layer",), "samples": 9, "quantile": "0.2", "grid": "4", "device": "cpu", "null": 0}
    return Options(**{"network": f"{nets}:{name}", "labeller": f"{nets}:Labeller", **how, **more})


def drawn(generator: Generator, samples: list[int]) -> np.ndarray:
    return draw(generator, generator.inputs(samples, CPU)).numpy()
