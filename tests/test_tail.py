"""What follows a layer, run by itself, gives what the whole network gives with a hook that changes the layer's maps."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from side_networks import Alternates, Dense, Drops, InPlace, Named, Shared, UNet, ready
from token_networks import write_token_networks
from torch import Tensor, nn
from torchvision.models import resnet18

from ndissect.engine.networks.functional import with_functional_layers
from ndissect.engine.networks.layers import list_layers
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.networks.scores import class_scores
from ndissect.engine.networks.tail import Tail
from ndissect.engine.networks.taps import Tap
from ndissect.store.errors import NDError

NETWORKS = Path(__file__).resolve().parents[2] / "shared" / "data" / "networks.py"
needs_networks = pytest.mark.skipif(
    not NETWORKS.is_file(), reason="the trained networks of the shared folder are absent"
)


def images(n: int = 2, side: int = 16) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(n))


def without(unit: int) -> Callable[[Tensor], Tensor]:
    def edit(maps: Tensor) -> Tensor:
        edited = maps.clone()
        edited[:, unit] = 0
        return edited

    return edit


def expected(module: nn.Module, tap: Tap, inputs: Tensor, edit: Callable[[Tensor], Tensor]) -> Any:
    """What the network gives where a hook of PyTorch's own puts the edited maps there."""
    calls = 0

    def hook(layer: nn.Module, args: Any, output: Any) -> Any:
        nonlocal calls
        calls += 1
        return tap.put_back(output, edit(tap.maps(output))) if tap.call in (0, calls) else None

    handle = module.get_submodule(tap.module).register_forward_hook(hook)
    try:
        with torch.no_grad():
            return module(inputs.clone())
    finally:
        handle.remove()


def same(a: Any, b: Any) -> bool:
    return torch.equal(class_scores("net", a), class_scores("net", b))


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """After the block all modules are as they were before it."""
    before = {name: (set(m.__dict__), len(m._forward_hooks)) for name, m in module.named_modules()}
    yield
    assert before == {name: (set(m.__dict__), len(m._forward_hooks)) for name, m in module.named_modules()}


def compare(module: nn.Module, tap: Tap, side: int = 16) -> Tail:
    """The tail over two batches, whose results are those of the whole network to the last bit."""
    with untouched(module), Tail(module, tap) as tail:
        for n in (2, 3):
            inputs = images(n, side)
            plain = tail.start(inputs.clone())
            assert same(plain, expected(module, tap, inputs, lambda maps: maps))
            for edit in (without(0), lambda maps: maps.flip(1), lambda maps: maps, without(2)):
                assert same(tail.run(edit), expected(module, tap, inputs, edit))
            assert len(tail.maps) == n
    return tail


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=7).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("layer", "call"),
    [
        *(("conv1", 0), ("relu", 0), ("layer3", 0), ("layer2.1", 0), ("layer2.1.bn2", 0)),
        *(("layer2.1.relu", 1), ("layer2.1.relu", 2), ("layer3.0.downsample.0", 0), ("layer4.0.conv2", 0)),
    ],
)
def test_resnet(resnet: nn.Module, layer: str, call: int) -> None:
    assert compare(resnet, Tap(layer, call), 32).alone


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (Dense, ("a", "b", "c")),
        (UNet, ("down1", "down2", "bottom", "up1", "up2")),
        (InPlace, ("a", "b", "c", "norm", "act")),
        (Shared, ("first",)),
    ],
)
def test_ways_round_the_layer(make: Callable[[], nn.Module], layers: tuple[str, ...]) -> None:
    module = ready(make())
    for layer in layers:
        tail = compare(module, Tap(layer))
        assert tail.alone, (layer, tail.reason)


def test_calls_of_one_module_are_told_apart() -> None:
    module = ready(Shared())
    for tap in (Tap("same", 1), Tap("same", 2), Tap("act", 1), Tap("act", 4), Tap("list", 0, ("0",))):
        tail = compare(module, tap)
        assert tail.alone, (tap, tail.reason)
    tail = compare(module, Tap("same"))  # which means every call
    assert not tail.alone
    assert tail.reason == "the layer is called several times"


def test_maps_inside_of_what_a_module_returns() -> None:
    assert compare(ready(Named()), Tap("both", path=("maps",))).alone


def test_only_what_follows_is_computed(resnet: nn.Module) -> None:
    called: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda module, args, output: called.append(name)

    with Tail(resnet, Tap("layer3")) as tail:
        tail.start(images(2, 32))
        handles = [m.register_forward_hook(note(name)) for name, m in resnet.named_modules() if name]
        tail.run(without(1))
        for handle in handles:
            handle.remove()
    inside = [name for name in called if "." in name]
    assert inside
    assert all(name.startswith("layer4.") for name in inside)


def test_maps_that_nothing_takes_again_are_not_kept(resnet: nn.Module) -> None:
    seen: dict[str, weakref.ref[Tensor]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, args, output: seen.setdefault(name, weakref.ref(output)) and None

    handles = [resnet.get_submodule(f"layer{n}").register_forward_hook(note(f"layer{n}")) for n in (1, 2, 3)]
    with Tail(resnet, Tap("layer3.0.conv1")) as tail:
        tail.start(images(2, 32))
        for handle in handles:
            handle.remove()
        assert seen["layer1"]() is None
        assert seen["layer2"]() is not None  # which layer3.0 adds to what its convolutions make


def test_each_image_may_lose_another_unit(resnet: nn.Module) -> None:
    units = torch.tensor([3, 5, 9])

    def edit(maps: Tensor) -> Tensor:
        edited = maps.clone()
        edited[torch.arange(len(units)), units] = 0
        return edited

    inputs = images(1, 32).repeat(3, 1, 1, 1)
    with Tail(resnet, Tap("layer3")) as tail:
        tail.start(inputs)
        scores = tail.run(edit)
    for row, unit in enumerate(units.tolist()):
        assert torch.allclose(scores[row], expected(resnet, Tap("layer3"), inputs[:1], without(unit))[0], atol=1e-5)


@pytest.mark.parametrize("name", ["classtoken", "registersbehind", "unitslast", "tokensfirst", "inference", "twice"])
def test_token_layers(tmp_path: Path, name: str) -> None:
    network = load_network(f"{write_token_networks(tmp_path)}:{name}")
    info = next(i for i in list_layers(network, (16, 16)) if i.name == "layer")
    assert info.tap is not None
    tap = info.tap
    inputs = images(2)
    with untouched(network.module), Tail(network.module, tap) as tail:
        tail.start(inputs)
        got = tail.run(without(1))
    assert tail.alone == (name != "twice")
    assert torch.equal(got, expected(network.module, tap, inputs, without(1)))


def test_layers_that_are_functions() -> None:
    network = with_functional_layers(load_network(f"{Path(__file__).parent / 'side_networks.py'}:Dense"))
    names = [name for name, _ in network.module.named_modules() if name.startswith(("relu", "cat"))]
    assert len(names) >= 3
    for name in names[:3]:
        assert compare(network.module, Tap(name)).alone


def test_gradients_are_recorded_where_maps_ask_for_them() -> None:
    inputs = images().double()
    for module, layer in ((ready(InPlace()), "b"), (ready(UNet()), "down2"), (ready(Alternates()), "c")):
        with Tail(module.double(), Tap(layer)) as tail:
            tail.start(inputs.clone())
            maps = tail.maps.clone().requires_grad_()
            score = tail.run(lambda _, maps=maps: maps)[0, 1]
            (slope,) = torch.autograd.grad(score, maps)
            score = score.detach()
            assert not tail.run(without(0)).requires_grad
            with torch.no_grad():
                assert not tail.run(lambda _, maps=maps: maps).requires_grad
        step = 1e-6 * slope / slope.norm()
        moved = expected(module, Tap(layer), inputs, lambda maps, step=step: maps + step)[0, 1]
        assert float(moved - score) == pytest.approx(1e-6 * float(slope.norm()), rel=1e-3)


def test_networks_that_are_not_the_same_twice_run_whole() -> None:
    inputs = images()
    with Tail(ready(Drops()), Tap("a")) as tail:
        tail.start(inputs)
        assert not tail.alone
        assert tail.reason == "what follows the layer gives other scores by itself"
        assert tail.run(without(0)).shape == (2, 5)
    tail = compare(ready(Alternates()), Tap("c"))
    assert not tail.alone
    assert tail.reason == "its code calls its layers in another order each time"


def test_torchscript() -> None:
    with pytest.warns(FutureWarning, match="script"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    module = nn.Sequential(scripted, nn.Conv2d(4, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module = module.eval().requires_grad_(False)
    assert compare(module, Tap("1")).alone
    with pytest.raises(NDError, match="not called"), Tail(module, Tap("0.0")) as tail:  # Python does not call it
        tail.start(images())


def test_everything_is_put_back_whatever_happens() -> None:
    module = ready(UNet())
    module.down1.__dict__["forward"] = own = lambda x: nn.Conv2d.forward(module.down1, x)

    def stop(error: BaseException) -> Callable[[Tensor], Tensor]:
        def edit(maps: Tensor) -> Tensor:
            raise error

        return edit

    with untouched(module), Tail(module, Tap("down2")) as tail:
        tail.start(images())
        for error in (KeyboardInterrupt(), ValueError("mine")):
            with pytest.raises(type(error)):
                tail.run(stop(error))
            assert not any("forward" in m.__dict__ for m in module.modules() if m is not module.down1)
            assert torch.is_grad_enabled()
        assert tail.alone
        assert same(tail.run(without(0)), expected(module, Tap("down2"), images(), without(0)))
    assert module.down1.__dict__["forward"] is own


def test_errors_of_the_network_are_its_own() -> None:
    module = ready(UNet())
    with pytest.raises(RuntimeError, match="channels"), untouched(module), Tail(module, Tap("down2")) as tail:
        tail.start(torch.rand(2, 5, 16, 16))


@needs_networks
@pytest.mark.parametrize(
    ("name", "layers", "side"),
    [
        ("cifar10_resnet20", ("layer2.1", "layer3.2.conv1"), 32),
        ("squeezenet_places365", ("fire9", "fire8.expand1x1.act"), 64),
        ("mobilenet_v2_imagenet", ("features.18", "features.12.conv.1.0"), 64),
        ("tinyvgg_10class", ("conv_2_1",), 64),
    ],
)
def test_real_networks(name: str, layers: tuple[str, ...], side: int) -> None:
    network = load_network(f"{NETWORKS}:{name}")
    for layer in layers:
        assert compare(network.module, Tap(layer), side).alone
