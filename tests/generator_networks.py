"""Small generators, as their files would have them: what they draw, and what is wrong with some of them."""

from __future__ import annotations

NETWORKS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Base(nn.Module):
    """z (N, 4) -> layer (N, 3, 4, 4) -> pictures (N, 3, 8, 8)."""

    generator = True
    z = 4
    channels = 3

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(1)
        self.mapping = nn.Linear(4, 4)
        self.layer = nn.ConvTranspose2d(4, self.channels, 4)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=g)

    def forward(self, z):
        return self.end(self.layer(self.mapping(z)[:, :, None, None]))

    def end(self, x):
        return F.interpolate(torch.sigmoid(x), scale_factor=2)


class Signed(Base):
    def end(self, x):
        return super().end(x) * 2 - 1


class Declared(Base):
    range = (0, 255)

    def end(self, x):
        return super().end(x) * 255


class Grey(Base):
    channels = 1


class Two(Base):
    channels = 2


class Several(Base):
    def end(self, x):
        return super().end(x)[:, :, : 8 if len(x) > 15 else 6]


class Tuple(Base):
    def end(self, x):
        return super().end(x), x


class Dict(Base):
    def end(self, x):
        return {"image": super().end(x)}


class Nan(Base):
    def end(self, x):
        return super().end(x) * float("nan")


class Fewer(Base):
    def end(self, x):
        return super().end(x)[:1]


class Noisy(Base):
    def end(self, x):
        x = x + torch.randn(len(x), 1, 4, 4, device=x.device)
        x = x + torch.empty_like(x).normal_() + torch.rand_like(x) + x.new_empty(x.shape).uniform_(0, 0.1)
        return super().end(x + torch.randn(1, 1, 4, 4))


class Dropping(Base):
    def end(self, x):
        return super().end(F.dropout(x, 0.5, training=True))


class DroppingBefore(Base):
    def forward(self, z):
        return super().forward(F.dropout(z, 0.5, training=True))


class Batched(Base):
    """A picture that depends on the others of its batch, behind the layer."""

    def end(self, x):
        return super().end(x - x.mean(0, keepdim=True))


class BatchedBefore(Base):
    def forward(self, z):
        return super().forward(z - z.mean(0, keepdim=True))


class Sampler(Base):
    z = None

    def sample(self, n, generator):
        return torch.rand(n, 4, generator=generator) + 10


class Unseeded(Base):
    def sample(self, n, generator):
        return torch.rand(n, 4)


class Shaped(Base):
    z = (2, 2)

    def forward(self, z):
        return super().forward(z.reshape(-1, 4))


class Silent(Base):
    generator = False
    z = None


class Conditional(Base):
    """Class k lights up channel k."""

    num_classes = 3
    classes = ["red", "green", "blue"]

    def forward(self, z, y):
        return super().forward(z) * 0 + F.one_hot(y, 3)[:, :, None, None].float()


class Autoencoder(nn.Module):
    generator = True

    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def encode(self, x):
        assert x.shape[-1] % 4 == 0, "sides must be divisible by 4"
        return F.avg_pool2d(x, 4)

    def decode(self, z):
        return F.interpolate(self.layer(z), scale_factor=4)

    def forward(self, x):
        return self.decode(self.encode(x))


class Labeller(nn.Module):
    classes = ("background", "bright", "dark")

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        return torch.cat([torch.full_like(mean, 0.3), mean, 0.8 - mean], 1)


class Blind(Labeller):
    def forward(self, x):
        return super().forward(x) * 0 + torch.tensor([1.0, 0, 0])[:, None, None]


def said():
    return Silent()


said.generator = True
'''
