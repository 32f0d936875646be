"""How a network is named, found and loaded, and how its own modules live beside ours."""

import importlib
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from ndissect.engine.networks.resolve import load_network
from ndissect.store.errors import NDError, WrongUse

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL = [
    "squeezenet_places365",
    "mobilenet_v2_imagenet",
    "deeplabv3_mnv2_voc",
    "espnet_camvid",
    "cifar10_resnet20",
    "tinyvgg_10class",
]
NET = """
from torch import nn
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path


def fails(spec: object, kind: type[NDError] = NDError, **options: object) -> NDError:
    with pytest.raises(kind) as caught:
        load_network(str(spec), **options)
    return caught.value


# ---- what is loaded


def test_a_loaded_network_is_ready_to_dissect(tmp_path):
    file = write(tmp_path / "small.py", NET)
    network = load_network(f"{file}:net")
    assert not network.module.training
    assert not any(p.requires_grad for p in network.module.parameters())
    assert network.name == "small"  # "net" says nothing
    assert network.origin["file"] == str(file)
    assert len(network.origin["sha256"]) == len(network.digest) == 64


def test_loading_twice_gives_the_same_digest_and_leaves_the_callers_random_numbers_alone(tmp_path):
    file = write(tmp_path / "small.py", NET)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = load_network(f"{file}:net"), load_network(f"{file}:net")
    assert torch.equal(torch.rand(1), expected)
    assert first.digest == second.digest
    assert first.module is not second.module


def test_the_digest_depends_on_every_weight(tmp_path):
    file = write(tmp_path / "small.py", NET)
    network = load_network(f"{file}:net")
    other = load_network(f"{file}:net")
    with torch.no_grad():
        other.module[0].bias[3] += 1e-7
    from ndissect.engine.networks.weights import digest_of

    assert digest_of(network.module) == network.digest != digest_of(other.module)


def test_classes_instances_and_pairs_serve_as_factories(tmp_path):
    file = write(
        tmp_path / "kinds.py",
        """
        from torch import nn
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(3, 2, 1)
            def forward(self, x):
                return self.conv(x)
        instance = Net()
        wrapped = nn.DataParallel(Net())
        def pair():
            return Net(), lambda x: x / 255
        def half():
            return Net().half()
        """,
    )
    names = {spec: load_network(f"{file}:{spec}").name for spec in ("Net", "instance", "pair")}
    assert names == {"Net": "Net", "instance": "instance", "pair": "pair"}
    assert type(load_network(f"{file}:wrapped").module).__name__ == "Net"
    half = load_network(f"{file}:half")
    assert half.module.conv.weight.dtype == torch.float32
    assert "half precision" in " ".join(half.notes)


@pytest.mark.parametrize("name", REAL)
def test_real_networks_load(name):
    if not (DATA / "networks.py").is_file():
        pytest.skip("the trained networks of the shared data folder are not here")
    network = load_network(f"{DATA / 'networks.py'}:{name}")
    assert network.name == name
    assert network.notes == ()
    images = torch.randint(0, 256, (2, 3, 112, 150), dtype=torch.uint8)
    with torch.no_grad():
        assert len(network.module(network.preprocess.apply(images))) == 2


def test_the_demo_network_loads():
    network = load_network("demo")
    assert network.name == "demo"
    assert {"layer1", "layer2", "layer3", "layer4"} <= {name for name, _ in network.module.named_children()}


def test_the_names_of_the_classes_are_those_that_the_module_gives(tmp_path):
    file = write(
        tmp_path / "named.py",
        """
        from torch import nn
        def network(classes):
            net = nn.Sequential(nn.Conv2d(3, 2, 1))
            net.classes = classes
            return net
        def listed(): return network(["sky", "road"])
        def mapped(): return nn.DataParallel(network({"1": "road", 0: "sky"}))
        def wrong(): return network({0: "sky", 2: "road"})
        def counted(): return network(2)
        def by_factory(): return network(None)
        by_factory.classes = ["sky", "road"]
        """,
    )
    names = {n: load_network(f"{file}:{n}").classes for n in ("listed", "mapped", "wrong", "counted", "by_factory")}
    both = ("sky", "road")
    assert names == {"listed": both, "mapped": both, "wrong": (), "counted": (), "by_factory": both}
    assert load_network("demo").classes[9] == "kitchen-s"


# ---- torchvision


def test_torchvision_without_weights_needs_no_download_and_repeats():
    first, second = load_network("torchvision:resnet18@none"), load_network("torchvision:resnet18@none")
    assert first.digest == second.digest
    assert (first.name, first.origin["weights"]) == ("resnet18", "none")
    assert first.preprocess.size == (224, 224)
    assert first.preprocess.mean == (0.485, 0.456, 0.406)


def test_the_names_of_the_classes_come_with_torchvisions_weights(monkeypatch):
    state = load_network("torchvision:lraspp_mobilenet_v3_large@none").module.state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: state)
    classes = load_network("torchvision:lraspp_mobilenet_v3_large").classes
    assert (len(classes), classes[0], classes[15]) == (21, "__background__", "person")
    assert load_network("torchvision:lraspp_mobilenet_v3_large@none").classes == ()


def test_torchvision_models_with_a_backbone_need_no_download_either(monkeypatch):
    def no_download(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", no_download)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_download)
    assert load_network("torchvision:lraspp_mobilenet_v3_large@none").origin["weights"] == "none"


def test_unknown_torchvision_names_and_weights_are_answered_with_what_there_is():
    assert "resnet18" in fails("torchvision:resnet81", WrongUse).hint
    error = fails("torchvision:resnet50@V3", WrongUse)
    assert error.hint == "It has: DEFAULT, IMAGENET1K_V1, IMAGENET1K_V2, none"


def test_a_download_that_fails_says_what_to_do(tmp_path):
    code = """
    from ndissect.engine.networks.resolve import load_network
    from ndissect.store.errors import NDError
    try:
        load_network("torchvision:squeezenet1_1")
    except NDError as error:
        print(error)
    """
    dead = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path)}
    done = run_python(code, tmp_path, dead)
    assert "could not be downloaded" in done.stdout
    assert "--weights FILE" in done.stdout and "torchvision:squeezenet1_1@none" in done.stdout


def test_own_weights_for_a_torchvision_network_need_no_download(tmp_path, monkeypatch):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: pytest.fail("download"))
    trained = load_network("torchvision:squeezenet1_1@none").module
    with torch.no_grad():
        trained.features[0].bias.fill_(0.25)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    network = load_network("torchvision:squeezenet1_1", weights=tmp_path / "w.pt")
    assert network.module.features[0].bias[0] == 0.25
    assert network.origin["weights_file"] == str(tmp_path / "w.pt")


# ---- wrong specs


def test_wrong_specs_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "small.py", NET + "\nclass Other: pass\ndef _private(): pass\n")
    assert "torchvision:resnet18" in fails("resnet18", WrongUse).hint
    assert "net, Other" in fails("small.py", WrongUse).hint
    assert "--weights w.pth" in fails("w.pth", WrongUse).hint
    assert "not there" in fails("gone.py:net", WrongUse).message
    assert "no module named nowhere.at_all" in fails("nowhere.at_all:net", WrongUse).message
    error = fails("small.py:nett", WrongUse)
    assert "no factory named 'nett'" in error.message
    assert error.hint == "Nearest: net. It defines: net, Other"
    assert "Did you mean timm:hf-hub:timm/resnet18.a1_in1k?" in fails("hf-hub:timm/resnet18.a1_in1k", WrongUse).hint
    assert "is a folder" in fails(str(tmp_path), WrongUse).message
    write(tmp_path / "pointer.py", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in fails("pointer.py:net").hint
    write(tmp_path / "w.pth", "")
    assert "--weights FILE" in fails("w.pth:net", WrongUse).hint
    write(tmp_path / "saved" / "config.json", "{}")
    assert "hf:saved" in fails("saved", WrongUse).hint
    assert "--weights" in fails("small.py:net", WrongUse, partial=True).hint
    for spec in ("", ":", "small.py:", ":net"):
        fails(spec, WrongUse)


def test_what_is_not_a_network_is_refused(tmp_path):
    file = write(
        tmp_path / "odd.py",
        """
        import torch
        from torch import nn
        def empty(): pass
        def threesome(): return nn.ReLU(), 1, 2
        def plain_dict(): return {"net": nn.ReLU()}
        def with_arguments(width, depth=2): return nn.ReLU()
        def scripted(): return torch.jit.script(nn.ReLU())
        def lazy(): return nn.LazyConv2d(3, 3)
        number = 3
        """,
    )
    assert "returned None" in fails(f"{file}:empty").message
    assert "a tuple of 3 (ReLU, int, int)" in fails(f"{file}:threesome").message
    assert "returned a dict" in fails(f"{file}:plain_dict").message
    error = fails(f"{file}:with_arguments", WrongUse)
    assert error.message.endswith("needs arguments: width") and "Wrap it" in error.hint
    assert "TorchScript" in fails(f"{file}:scripted").message
    assert "lazy" in fails(f"{file}:lazy").message
    assert "not a factory" in fails(f"{file}:number", WrongUse).message


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("import torch\nx = 1\nraise ValueError('no licence')\n", "line 3", "ValueError: no licence"),
        ("from torch import nn\ndef net(:\n    pass\n", "line 2", "SyntaxError"),
        ("import a_package_nobody_has\n", "line 1", "No module named 'a_package_nobody_has'"),
        ("import sys\n\nsys.exit('usage: train.py DATA')\n", "line 3", "usage: train.py DATA"),
        ("from torch import nn\ndef net():\n    return nn.Conv2d(3, 4)\n", "line 3", "missing 1 required"),
        ("def net():\n    return deeper()\ndef deeper():\n    return 1 / 0\n", "line 4", "ZeroDivisionError"),
    ],
)
def test_a_failure_in_the_networks_code_names_the_line_there(tmp_path, text, line, told):
    file = write(tmp_path / "broken.py", text)
    error = fails(f"{file}:net")
    assert line in error.message and told in error.message and "broken.py" in error.message
    assert error.__cause__ is not None  # --debug shows the whole traceback


# ---- isolation


def test_two_networks_each_get_their_own_modules_also_later_in_forward(tmp_path):
    for name, channels in (("a", 2), ("b", 5)):
        write(tmp_path / name / "utils.py", f"CHANNELS = {channels}\n")
        write(tmp_path / name / "late.py", f"SCALE = {channels * 10}.0\n")
        write(
            tmp_path / name / "net.py",
            """
            from torch import nn
            import utils
            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.conv = nn.Conv2d(3, utils.CHANNELS, 1)
                def forward(self, x):
                    from late import SCALE
                    return self.conv(x) * 0 + SCALE
            """,
        )
    a, b = load_network(f"{tmp_path}/a/net.py:Net"), load_network(f"{tmp_path}/b/net.py:Net")
    x = torch.zeros(1, 3, 2, 2)
    assert b.module(x)[0, 0, 0, 0] == 50
    assert a.module(x)[0, 0, 0, 0] == 20
    assert (a.module.conv.out_channels, b.module.conv.out_channels) == (2, 5)
    assert "utils" not in sys.modules and "late" not in sys.modules
    assert not any(str(tmp_path) in entry for entry in sys.path)


def test_names_of_ours_belong_to_the_network_in_its_own_folder(tmp_path):
    for name in ("engine", "store", "tui", "data"):
        write(tmp_path / f"{name}.py", f"WHO = 'the {name} of the network'\n")
    write(tmp_path / "netdissect" / "__init__.py", "")
    write(tmp_path / "netdissect" / "upsample.py", "WHO = 'the older tool'\n")
    write(tmp_path / "ndissect" / "__init__.py", "WHO = 'a folder of the same name'\n")
    file = write(
        tmp_path / "net.py",
        """
        import engine, store, tui, data, netdissect.upsample, ndissect
        from netdissect import upsample
        from torch import nn
        def net():
            module = nn.Conv2d(3, 1, 1)
            module.who = [engine.WHO, store.WHO, tui.WHO, data.WHO, upsample.WHO, ndissect.WHO]
            assert netdissect.upsample is upsample
            return module
        """,
    )
    assert load_network(f"{file}:net").module.who == [
        "the engine of the network",
        "the store of the network",
        "the tui of the network",
        "the data of the network",
        "the older tool",
        "a folder of the same name",
    ]
    import ndissect.store

    assert not hasattr(sys.modules["ndissect"], "WHO") and ndissect.store


def test_files_named_like_the_standard_library_break_nobody(tmp_path):
    for name in ("random", "types", "queue", "statistics", "torch", "numpy", "copy", "platform"):
        write(tmp_path / f"{name}.py", "raise RuntimeError('the wrong module')\n")
    write(tmp_path / "test.py", "WHO = 'test.py beside the network'\n")
    write(
        tmp_path / "net.py",
        """
        import random, types, queue, torch, copy
        from test import WHO
        from torch import nn
        def net():
            copy.deepcopy(queue.Queue and random.random())
            return nn.Conv2d(3, 1, 1)
        """,
    )
    code = f"""
    import sys
    from ndissect.engine.networks.resolve import load_network
    network = load_network({str(tmp_path / "net.py")!r} + ":net")
    import random, statistics, queue, platform, test
    print(random.random() < 1, statistics.mean([1, 3]), hasattr(test, "WHO"))
    """
    done = run_python(code, tmp_path / "elsewhere")
    assert done.stdout.split() == ["True", "2", "False"], done.stderr


def test_importlib_and_pickle_find_the_networks_modules(tmp_path):
    write(tmp_path / "models" / "__init__.py", "registry = {}\n")
    write(
        tmp_path / "models" / "small.py",
        """
        from dataclasses import dataclass
        from torch import nn
        from models import registry
        @dataclass
        class Config:
            width: int = 3
        class Small(nn.Conv2d):
            pass
        registry["small"] = Small
        """,
    )
    file = write(
        tmp_path / "build.py",
        """
        import importlib, io, torch
        import models
        from models.small import Config, Small
        def net():
            found = importlib.import_module("models.small")
            assert found.Small is Small and models.registry["small"] is Small
            buffer = io.BytesIO()
            torch.save(Small(3, Config().width, 1), buffer)
            buffer.seek(0)
            return torch.load(buffer, weights_only=False)
        """,
    )
    network = load_network(f"{file}:net")
    assert type(pickle.loads(pickle.dumps(network.module))) is type(network.module)


def test_a_pickle_of_the_networks_own_repository_opens_in_the_factory(tmp_path):
    write(tmp_path / "models" / "common.py", "from torch import nn\nclass Own(nn.Conv2d):\n    pass\n")
    code = "import torch; from models.common import Own; torch.save(Own(3, 2, 1), 'whole.pt')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    text = """
    from pathlib import Path
    import torch
    def net():
        return torch.load(Path(__file__).parent / "whole.pt", weights_only=False)
    """
    file = write(tmp_path / "hub.py", text)
    assert load_network(f"{file}:net").module.out_channels == 2


def test_a_file_inside_a_package_may_import_relatively_and_absolutely(tmp_path, monkeypatch):
    repo = tmp_path / "repo"
    write(repo / "lib" / "__init__.py", "")
    write(repo / "lib" / "common.py", "WIDTH = 6\n")
    write(repo / "lib" / "nets" / "__init__.py", "")
    write(repo / "lib" / "nets" / "blocks.py", "from ..common import WIDTH\n")
    write(
        repo / "lib" / "nets" / "net.py",
        """
        from torch import nn
        from .blocks import WIDTH
        from ..common import WIDTH as again
        from lib.common import WIDTH as absolute
        import blocks_beside
        def net():
            return nn.Conv2d(3, WIDTH + again + absolute, 1)
        """,
    )
    write(repo / "lib" / "nets" / "blocks_beside.py", "")
    monkeypatch.chdir(tmp_path)
    assert load_network("repo/lib/nets/net.py:net").module.out_channels == 18
    monkeypatch.chdir(repo)
    assert load_network("lib.nets.net:net").module.out_channels == 18


def test_the_folder_where_nd_is_started_is_importable(tmp_path, monkeypatch):
    write(tmp_path / "helpers.py", "WIDTH = 9\n")
    write(
        tmp_path / "configs" / "net.py",
        "import helpers\nfrom torch import nn\ndef net():\n    return nn.Conv2d(3, helpers.WIDTH, 1)\n",
    )
    monkeypatch.chdir(tmp_path)
    assert load_network("configs/net.py:net").module.out_channels == 9


def test_folders_that_the_network_adds_to_the_path_stay_its_own(tmp_path):
    write(tmp_path / "lib" / "far.py", "WIDTH = 4\n")
    write(tmp_path / "lib" / "later.py", "SCALE = 2.0\n")
    file = write(
        tmp_path / "net.py",
        """
        import os, sys
        from torch import nn
        sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
        import far
        class Net(nn.Module):
            def forward(self, x):
                import later
                return x * later.SCALE * far.WIDTH
        """,
    )
    network = load_network(f"{file}:Net")
    assert network.module(torch.ones(1)) == 8
    assert not any("lib" in entry and str(tmp_path) in entry for entry in sys.path)


def test_a_file_named_like_the_package_it_imports_gets_the_package(tmp_path):
    text = "import torchvision\nfrom torch import nn\ndef net():\n    return nn.Conv2d(3, 1, 1)\n"
    file = write(tmp_path / "torchvision.py", text)
    assert load_network(f"{file}:net").module.out_channels == 1
    file = write(tmp_path / "safetensors.py", "import safetensors.torch\n" + text)
    assert load_network(f"{file}:net").module.out_channels == 1
    importlib.import_module("safetensors.torch")


def test_what_the_network_prints_does_not_reach_stdout(tmp_path, capsys):
    file = write(tmp_path / "chatty.py", "print('loading')\n" + NET + "    ")
    load_network(f"{file}:net")
    assert capsys.readouterr().out == ""


def test_a_file_in_the_current_folder_loads_in_a_fresh_process(tmp_path):
    write(tmp_path / "utils.py", "WIDTH = 7\n")
    write(
        tmp_path / "net.py",
        """
        import utils
        from torch import nn
        class Net(nn.Sequential):
            def __init__(self):
                super().__init__(nn.Conv2d(3, utils.WIDTH, 1))
        """,
    )
    code = """
    from ndissect.engine.networks.resolve import load_network
    for spec in ("net.py:Net", "./net.py:Net", "net:Net"):
        network = load_network(spec)
        print(network.name, network.module[0].out_channels)
    """
    assert run_python(code, tmp_path).stdout.split() == ["Net", "7"] * 3


def run_python(code: str, folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    import os

    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **(env or {})},
    )


def test_a_whole_module_is_not_needed_for_the_name(tmp_path):
    file = write(tmp_path / "my net.v2.py", NET)
    assert load_network(f"{file}:net").name == "my_net.v2"
    assert isinstance(load_network(f"{file}:net").module, nn.Sequential)
