"""Dissects fifty networks of torchvision and ten of timm, of all their families, as they are and with random weights.

    OMP_NUM_THREADS=2 python tests/benchmarks/families.py [--only torchvision|timm] [--match TEXT] [--images 6]

Nothing is downloaded. Every network is dissected over a few synthetic images by the layers that are taken where none is
named; small images are given where the network allows them. It prints which were taken, in how many seconds, or why a
network was refused, and ends with 1 where one was refused that should not be, or for another reason than it should.

59 are dissected, in 1 to 90 seconds each on two busy cores (torch 2.14, timm 1.0.31), and one takes videos.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

from ndissect.engine.data.synthetic import write_synthetic
from ndissect.engine.machine.console import Console
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError
from ndissect.store.reader import Store

# Networks that take images of any size are given small ones; those of a fixed size get theirs.
SMALL = "64"
_TORCHVISION = {
    SMALL: """
        convnext_tiny deeplabv3_mobilenet_v3_large deeplabv3_resnet50 densenet121 densenet169 efficientnet_b0
        efficientnet_b1 efficientnet_v2_s fasterrcnn_mobilenet_v3_large_320_fpn fcn_resnet50 googlenet
        lraspp_mobilenet_v3_large mnasnet0_5 mnasnet1_0 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small
        quantized_googlenet quantized_mobilenet_v2 quantized_resnet18 quantized_shufflenet_v2_x1_0 regnet_x_400mf
        regnet_x_800mf regnet_x_1_6gf regnet_y_400mf regnet_y_800mf resnet18 resnet34 resnet50 resnet101
        resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1
        ssd300_vgg16 ssdlite320_mobilenet_v3_large swin_t swin_v2_t vgg11 vgg13_bn vgg16 wide_resnet50_2""",
    "96": "alexnet inception_v3 quantized_inception_v3",
    "": "maxvit_t r3d_18 vit_b_32",
}
_TIMM = {
    SMALL: "convnext_atto ghostnet_100 mobilenetv4_conv_small regnety_002 resnet10t",
    "": "coatnet_nano_rw_224 deit_tiny_distilled_patch16_224 levit_128s swin_tiny_patch4_window7_224 "
    "vit_tiny_patch16_224",
}
#: By name the size of the input, "" for the network's own.
TORCHVISION = {name: size for size, names in _TORCHVISION.items() for name in names.split()}
TIMM = {name: size for size, names in _TIMM.items() for name in names.split()}
#: Networks that are refused, and a word of the right reason.
REFUSED = {"torchvision:r3d_18@none": "videos"}


@dataclass(frozen=True)
class Result:
    """What became of a network: the layers taken, or in words why none; ``right``: as it should be."""

    seconds: float
    layers: str
    refused: str
    right: bool


def dissected(spec: str, size: str, data: Path, folder: Path) -> Result:
    """Dissects one network into a store that is not kept."""
    start = time.perf_counter()
    options = Options(network=spec, data=str(data), size=size or None, null=0, top=1, device="cpu")
    store = folder / "one.nd.h5"
    try:
        dissect_to_store(options, Console(), output=store, force=True, restart=True)
        with Store(store) as opened:
            layers = ", ".join(opened.layer_names)
    except NDError as error:
        told = f"{error.message} / {error.hint}"
        return Result(time.perf_counter() - start, "", told, spec in REFUSED and REFUSED[spec] in told)
    except Exception:
        return Result(time.perf_counter() - start, "", f"a defect: {traceback.format_exc()}", False)
    finally:
        store.unlink(missing_ok=True)
        gc.collect()
    return Result(time.perf_counter() - start, layers, "", spec not in REFUSED)


def main() -> int:
    """Dissect, and print; 1 where something is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("torchvision", "timm"))
    parser.add_argument("--match", default="")
    parser.add_argument("--images", type=int, default=6)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    libraries = {"torchvision": TORCHVISION, "timm": TIMM}
    networks = {
        f"{library}:{name}@none": size
        for library, names in libraries.items()
        if given.only in (None, library)
        for name, size in sorted(names.items())
        if given.match in name
    }
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = write_synthetic(folder / "data", given.images, image_size=96, grid=48, concepts=40, workers=1)
        for spec, size in networks.items():
            result = dissected(spec, size, data, folder)
            results.append(result)
            outcome = result.layers or f"refused: {result.refused}"
            print(f"{spec:52} {result.seconds:6.1f} s  {'' if result.right else 'WRONG '}{outcome}", flush=True)
    done = sum(bool(r.layers) for r in results)
    wrong = sum(not r.right for r in results)
    print(f"{done} of {len(results)} dissected, {len(results) - done} refused, {wrong} not as they should be")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
