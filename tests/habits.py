"""Networks in the many habits of ordinary code, each a factory; test_network_habits.py says what becomes of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2


class Net(nn.Module):
    """Two convolutions, the second in a child of its own."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 6, 3, 2, 1)
        self.inner = nn.Sequential(nn.Conv2d(6, 4, 3, 2, 1), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Any:
        return self.inner(self.conv(x))


class ReturnsNothing(Net):
    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)

    def eval(self) -> None:  # type: ignore[override]
        self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> None:  # type: ignore[override]
        for p in self.parameters():
            p.requires_grad = requires_grad


def returns_nothing() -> nn.Module:
    return ReturnsNothing()


class TakesNoMode(Net):
    def eval(self) -> TakesNoMode:
        for m in self.modules():
            m.training = False
        return self


def takes_no_mode() -> nn.Module:
    return TakesNoMode()


class InferenceForward(Net):
    @torch.inference_mode()
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


def inference_forward() -> nn.Module:
    return InferenceForward()


class NoGradForward(Net):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)


def no_grad_forward() -> nn.Module:
    return NoGradForward()


class NeedsGrad(Net):
    """Takes the gradient of its own output by its input."""

    def forward(self, x: Tensor) -> Any:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.conv(x).sum(), x)
        return self.inner(self.conv(x + gradient))


def needs_grad() -> nn.Module:
    return NeedsGrad()


def made_in_inference() -> nn.Module:
    with torch.inference_mode():
        net = Net()
        net.again = net.conv
        net.tied = nn.Conv2d(3, 6, 3)
        net.tied.weight = net.conv.weight
        net.register_buffer("mean", torch.zeros(1))
    return net


def scripted_child() -> nn.Module:
    net = Net()
    net.inner = torch.jit.script(net.inner)
    return net


def traced_child() -> nn.Module:
    net = Net()
    net.inner = torch.jit.trace(net.inner.eval(), torch.zeros(1, 6, 16, 16))
    return net


def scripted_whole() -> nn.Module:
    return torch.jit.script(Net())


def compiled_child() -> nn.Module:
    net = Net()
    net.inner = torch.compile(net.inner)
    return net


class CompiledForward(Net):
    @torch.compile
    def forward(self, x: Tensor) -> Any:
        return self.inner(self.conv(x))


def compiled_forward() -> nn.Module:
    return CompiledForward()


def compiled_whole() -> nn.Module:
    return torch.compile(Net())


def compiled_in_place() -> nn.Module:
    net = Net()
    net.compile()
    net.inner.compile()
    return net


def exported_program() -> Any:
    return torch.export.export(Net().eval(), (torch.zeros(2, 3, 32, 32),))


def exported_module() -> nn.Module:
    return exported_program().module()


def traced_by_fx() -> nn.Module:
    return torch.fx.symbolic_trace(Net())


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return Net()


def half_on_meta() -> nn.Module:
    net = Net()
    net.register_buffer("grid", torch.zeros(3, device="meta"), persistent=False)
    return net


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())


def weight_normed() -> nn.Module:
    net = Net()
    nn.utils.parametrizations.weight_norm(net.conv)
    return net


def weight_normed_as_before() -> nn.Module:
    net = Net()
    nn.utils.weight_norm(net.conv)
    return net


def spectral_normed() -> nn.Module:
    net = Net()
    nn.utils.parametrizations.spectral_norm(net.conv)
    return net


def spectral_normed_as_before() -> nn.Module:
    net = Net()
    nn.utils.spectral_norm(net.conv)
    return net


class Pooled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(super().forward(x).mean((2, 3)))


def dynamically_quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(Pooled().eval(), {nn.Linear})


class Quantised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.dequant(self.conv(self.quant(x)))


def quantised() -> nn.Module:
    net = Quantised().eval()
    torch.backends.quantized.engine = next(
        e for e in ("x86", "fbgemm", "qnnpack") if e in torch.backends.quantized.supported_engines
    )
    net.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
    prepared = torch.ao.quantization.prepare(net)
    prepared(torch.rand(2, 3, 32, 32))
    return torch.ao.quantization.convert(prepared)


class ResizesItsBuffer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positions", torch.zeros(1, 1, 2, 2))
        self.register_buffer("nothing", None)

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        if self.positions.shape[-2:] != y.shape[-2:]:
            self.positions = F.interpolate(self.positions, y.shape[-2:])
        return self.inner(y + self.positions)


def resizes_its_buffer() -> nn.Module:
    return ResizesItsBuffer()


class MakesLayersLate(Net):
    def forward(self, x: Tensor) -> Any:
        if not hasattr(self, "late"):
            self.late = nn.Conv2d(3, 3, 1).to(x.device)
        return super().forward(self.late(x))


def makes_layers_late() -> nn.Module:
    return MakesLayersLate()


class TakesMore(Net):
    def forward(self, x: Tensor, mask: Tensor | None = None, *rest: Any, scale: float = 1.0, **options: Any) -> Any:
        return super().forward(x * scale)


def takes_more() -> nn.Module:
    return TakesMore()


class ReturnsNone(Net):
    def forward(self, x: Tensor) -> Any:
        super().forward(x)


def returns_none() -> nn.Module:
    return ReturnsNone()


class RefusesCopies(Net):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot be copied")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("cannot be pickled")


def refuses_copies() -> nn.Module:
    net = RefusesCopies()
    assert copy.deepcopy(net.conv) is not net.conv
    return net


def made_on_gpu_if_any() -> nn.Module:
    return Net().to("cuda" if torch.cuda.is_available() else "cpu")


def only_on_gpu() -> nn.Module:
    if torch.cuda.is_available():
        raise RuntimeError("Torch not compiled with CUDA enabled")
    return Net().cuda()


class GpuInForward(Net):
    def forward(self, x: Tensor) -> Any:
        if torch.cuda.is_available():
            raise RuntimeError("Torch not compiled with CUDA enabled")
        return super().forward(x.cuda())


def gpu_in_forward() -> nn.Module:
    return GpuInForward()


def double() -> nn.Module:
    return Net().double()


def double_by_default() -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return Net()


def on_meta_by_default() -> nn.Module:
    torch.set_default_device("meta")
    return Net()


def halves() -> nn.Module:
    return Net().half()


def brain_floats() -> nn.Module:
    return Net().bfloat16()


class DoublesInForward(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x * torch.linspace(0, 1, x.shape[-1], dtype=torch.float64))


def doubles_in_forward() -> nn.Module:
    return DoublesInForward().double()


class AutocastForward(Net):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return super().forward(x)


def autocast_forward() -> nn.Module:
    return AutocastForward()


def frozen() -> nn.Module:
    return Net().eval().requires_grad_(False)


class OfParametersAlone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6, 3, 3, 3))
        self.inner = nn.ReLU()

    def forward(self, x: Tensor) -> Any:
        return self.inner(F.conv2d(x, self.weight))


def of_parameters_alone() -> nn.Module:
    return OfParametersAlone()


class Reused(Net):
    def forward(self, x: Tensor) -> Any:
        return self.inner(self.conv(self.conv(x)[:, :3]))


def reused() -> nn.Module:
    return Reused()


def grey() -> nn.Module:
    return Net(1)


def two_channels() -> nn.Module:
    return Net(2)


def rgbd() -> nn.Module:
    return Net(4)


def rgbd_with_transform() -> Any:
    return Net(4), lambda x: torch.cat([x.float() / 255, torch.zeros_like(x[..., :1, :, :], dtype=torch.float32)], -3)


def grey_with_transform() -> Any:
    return Net(1), v2.Compose([v2.Grayscale(), v2.ToDtype(torch.float32, scale=True)])


class TwoInputs(Net):
    def forward(self, image: Tensor, depth: Tensor) -> Any:
        return super().forward(image + depth)


def two_inputs() -> nn.Module:
    return TwoInputs()


class ByNameAlone(Net):
    def forward(self, *, image: Tensor) -> Any:
        return super().forward(image)


def by_name_alone() -> nn.Module:
    return ByNameAlone()


class TakesABatch(Net):
    def forward(self, batch: Any) -> Any:
        if not isinstance(batch, dict):
            raise KeyError("image")
        return super().forward(batch["image"])


def takes_a_batch() -> nn.Module:
    return TakesABatch()


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.ConvTranspose2d(64, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))

    def forward(self, z: Tensor) -> Any:
        return self.net(z.view(len(z), 64, 1, 1))


def generator() -> nn.Module:
    return Generator()


def generator_of_columns() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(64, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1))


def video() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 4, 3), nn.ReLU())


def text() -> nn.Module:
    return nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2))


class ListOfImages(Net):
    def forward(self, images: list[Tensor]) -> Any:
        if not isinstance(images, list):
            raise TypeError("images is expected to be a list")
        return super().forward(torch.stack(images))


def list_of_images() -> nn.Module:
    return ListOfImages()


class FixedSize(Net):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4 * 7 * 7, 5)

    def forward(self, x: Tensor) -> Any:
        return self.head(super().forward(x).flatten(1))


def fixed_size() -> nn.Module:
    return FixedSize()


def fixed_size_with_transform() -> Any:
    return FixedSize(), lambda x: x.float() / 255


class AssertsItsSize(Net):
    def forward(self, x: Tensor) -> Any:
        assert x.shape[-2:] == (64, 64), "wrong size"
        return super().forward(x)


def asserts_its_size() -> nn.Module:
    return AssertsItsSize()


class Fails(Net):
    def forward(self, x: Tensor) -> Any:
        raise ValueError("no weights today")


def fails() -> nn.Module:
    return Fails()


def weights_alone() -> Any:
    return Net().state_dict()


def channels_last() -> nn.Module:
    return Net().to(memory_format=torch.channels_last)


class Prints(Net):
    def forward(self, x: Tensor) -> Any:
        print("a line for each batch")
        return super().forward(x)


def prints() -> nn.Module:
    return Prints()


def hooked_already() -> nn.Module:
    net = Net()
    net.features = {}
    net.conv.register_forward_hook(lambda m, i, o: net.features.update(conv=o))
    return net


class Slots(Net):
    """Whose children are called by names that are its own attributes, and by numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"0": nn.Identity(), "a b": nn.ReLU()})

    def forward(self, x: Tensor) -> Any:
        return self.blocks["a b"](super().forward(self.blocks["0"](x)))


def slots() -> nn.Module:
    return Slots()


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.same = self.conv


def tied() -> nn.Module:
    return Tied()


class Checkpointed(Net):
    def forward(self, x: Tensor) -> Any:
        return torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False)


def checkpointed() -> nn.Module:
    return Checkpointed()
