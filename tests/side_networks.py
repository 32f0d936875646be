"""Small networks in which values go round a layer, modules are called more than once, or values change in place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(i: int, o: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1)


class Dense(nn.Module):
    """Each layer takes the maps of all before it; the first takes part in the scores by a way round all others."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(4, 4), conv(8, 4)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.a(x)]
        features.append(self.b(F.relu(features[0])))
        features.append(self.c(torch.cat(features, 1).relu()))
        return self.head(torch.cat(features, 1).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 4), conv(4, 4), conv(4, 4)
        self.up1, self.up2 = conv(8, 4), conv(8, 5)
        self.pool, self.act = nn.MaxPool2d(2), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        one = self.act(self.down1(x))
        two = self.act(self.down2(self.pool(one)))
        y = F.interpolate(self.act(self.bottom(self.pool(two))), scale_factor=2)
        y = F.interpolate(self.act(self.up1(torch.cat([y, two], 1))), scale_factor=2, mode="bilinear")
        return self.up2(torch.cat([y, one], 1)).mean((2, 3))


class Shared(nn.Module):
    """One convolution and one ReLU, called again and again; and a list that a module returns, to which is added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.same, self.act, self.list = conv(3, 4), conv(4, 4), nn.ReLU(), Listing()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        values = self.list(self.act(self.first(x)))
        for _ in range(3):
            values.append(self.act(self.same(values[-1])))
        return self.head(torch.stack(values).sum(0).mean((2, 3)))


class Listing(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


class InPlace(nn.Module):
    """Functions change in place what modules returned, before the layer ``b`` and behind it, and the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(4, 4), conv(4, 4)
        self.norm, self.act = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x.sub_(0.5))
        twice = a * 2
        F.relu(a, inplace=True)
        b = self.b(a + twice)
        a += 1
        b += a
        return self.head(self.act(self.norm(self.c(b.clamp_(min=-0.1))).add_(a)).mean((2, 3)))


class Named(nn.Module):
    """Returns its maps in a dictionary; the scores are in one as well."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.head = Both(), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> dict[str, Any]:
        given = self.both(x)
        return {"features": given["other"], "logits": self.head((given["maps"].relu() + given["other"]).mean((2, 3)))}


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4), conv(3, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"maps": self.a(x), "other": self.b(x)}


class Drops(nn.Module):
    """Random each time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = conv(3, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(self.a(x), 0.5, True).mean((2, 3)))


class Alternates(nn.Module):
    """Calls its layers in another order in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), conv(3, 4), conv(4, 4)
        self.head, self.passes = nn.Linear(4, 5), 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        first, second = (self.a, self.b)[:: 1 if self.passes % 2 else -1]
        one, two = first(x), second(x)
        return self.head(self.c((one + two).relu()).relu().mean((2, 3)))


def ready(network: nn.Module) -> nn.Module:
    """The network as nd has networks: not training, without gradients, the same weights each time."""
    torch.manual_seed(1)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) - 0.3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var.add_(1)
    return network.eval().requires_grad_(False)
