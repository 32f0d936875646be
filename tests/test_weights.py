"""Weights from files: what is undone, what is refused, and that no code in them ever runs."""

import argparse
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ndissect.engine.checkpoints.read import load_state
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.networks.weights import apply_state
from ndissect.store.errors import NDError


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


def trained() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        k: torch.rand(v.shape, generator=generator) if v.is_floating_point() else v
        for k, v in small().state_dict().items()
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar", ".ckpt", ".safetensors", ".anything"])
def test_a_state_dict_comes_back_whatever_the_file_is_called(tmp_path, suffix):
    file = tmp_path / f"w{suffix}"
    (save_file if suffix in (".safetensors", ".anything") else torch.save)(trained(), file)
    assert same(load_state(file), trained())


def test_the_format_before_torch_1_6_is_read(tmp_path):
    torch.save(trained(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_state(tmp_path / "old.pth"), trained())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(1)}}, "param_groups": []}},
        lambda s: {"model_state_dict": s, "loss": torch.tensor(0.5)},
        lambda s: {"model": s, "args": argparse.Namespace(lr=0.1)},
        lambda s: {"net": s, "acc": 91.2},
        lambda s: {"ema": s},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"my_own_name": s, "epoch": 1},
    ],
)
def test_wrappers_of_training_scripts_are_undone(tmp_path, wrap):
    torch.save(wrap(trained()), tmp_path / "w.pt")
    assert same(load_state(tmp_path / "w.pt"), trained())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "module.model."])
def test_prefixes_of_training_wrappers_are_undone(prefix):
    module = small()
    apply_state(module, {prefix + k: v for k, v in trained().items()}, "w.pt")
    assert same(dict(module.state_dict()), trained())


def test_a_prefix_that_is_a_child_of_the_network_stays():
    module = nn.Module()
    module.model = small()
    apply_state(module, {f"model.{k}": v for k, v in trained().items()}, "w.pt")
    assert same(dict(module.model.state_dict()), trained())
    apply_state(module, {f"module.model.{k}": v for k, v in trained().items()}, "w.pt")


def test_half_precision_weights_become_what_the_network_computes_in():
    module = small()
    apply_state(module, {k: v.half() if v.is_floating_point() else v for k, v in trained().items()}, "w.pt")
    assert module[0].weight.dtype == torch.float32
    assert torch.equal(module[0].weight, trained()["0.weight"].half().float())


def test_batch_counters_may_be_absent():
    state = {k: v for k, v in trained().items() if "num_batches" not in k}
    assert apply_state(small(), state, "w.pt").missing == ()


def test_every_key_that_does_not_fit_is_listed_and_refused_unless_partial():
    state = trained()
    del state["1.bias"], state["1.running_var"]
    state |= {"fc.weight": torch.ones(2), "fc.bias": torch.ones(2), "0.weight": torch.ones(4, 3, 5, 5)}
    module = small()
    with pytest.raises(NDError) as caught:
        apply_state(module, state, "w.pt")
    for text in (
        "2 missing in the file: 1.bias, 1.running_var",
        "2 not in the network: fc.weight, fc.bias",
        "1 of another shape: 0.weight (file 4x3x5x5, network 4x3x3x3)",
    ):
        assert text in caught.value.message
    assert "--partial" in caught.value.hint
    assert not torch.equal(module[0].bias, state["0.bias"])  # nothing was touched
    fit = apply_state(module, state, "w.pt", partial=True)
    assert (fit.missing, fit.unexpected, fit.mismatched) == (
        ("1.bias", "1.running_var"),
        ("fc.weight", "fc.bias"),
        ("0.weight",),
    )
    assert torch.equal(module[0].bias, state["0.bias"])


def test_weights_of_another_network_are_refused_even_as_a_part():
    with pytest.raises(NDError, match="none of its 1 keys fits"):
        apply_state(small(), {"blocks.0.weight": torch.ones(1)}, "w.pt", partial=True)


def test_partial_weights_are_told_to_the_user_and_kept_in_the_provenance(tmp_path):
    (tmp_path / "net.py").write_text("from torch import nn\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3))\n")
    torch.save({"0.weight": torch.ones(4, 3, 3, 3)}, tmp_path / "w.pt")
    network = load_network(f"{tmp_path}/net.py:net", weights=tmp_path / "w.pt", partial=True)
    assert network.origin["weights_missing"] == "0.bias"
    assert any("0.bias" in note for note in network.notes)
    assert len(network.origin["weights_sha256"]) == 64


# ---- files that are no weights


def refuse(file: Path) -> NDError:
    with pytest.raises(NDError) as caught:
        load_state(file)
    assert str(file) in caught.value.message
    return caught.value


class Evil:
    """Unpickled, it would create a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_code_in_a_checkpoint_never_runs(tmp_path, modern, suffix):
    mark, file = tmp_path / "ran", tmp_path / f"evil{suffix}"
    torch.save({"state_dict": trained(), "x": Evil(mark)}, file, _use_new_zipfile_serialization=modern)
    error = refuse(file)
    assert "could run code" in error.message and "system" in error.message
    assert not mark.exists()
    with file.open("rb") as opened:
        torch.load(opened, weights_only=False)
    assert mark.exists()  # the trap works


def test_code_in_a_bare_pickle_never_runs(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(mark)))
    refuse(tmp_path / "evil.pkl")
    assert not mark.exists()


def test_a_whole_pickled_module_is_refused_with_the_way_out(tmp_path):
    torch.save(small(), tmp_path / "whole.pt")
    error = refuse(tmp_path / "whole.pt")
    assert "more than tensors" in error.message and "Sequential" in error.message
    assert "weights_only=False" in error.hint


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    file = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(trained(), file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    refuse(file)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><title>404</title>")
    assert "not a checkpoint" in refuse(tmp_path / "page.pt").message
    (tmp_path / "pointer.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in refuse(tmp_path / "pointer.pt").hint
    (tmp_path / "empty.pt").touch()
    refuse(tmp_path / "empty.pt")
    with zipfile.ZipFile(tmp_path / "archive.pt", "w") as z:
        z.writestr("readme.txt", "hello")
    refuse(tmp_path / "archive.pt")
    refuse(tmp_path / "gone.pt")
    refuse(tmp_path)
    torch.save({"epoch": 3, "history": [1, 2]}, tmp_path / "log.pt")
    assert "no state dict: a dict with epoch, history" in refuse(tmp_path / "log.pt").message
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    assert "a list" in refuse(tmp_path / "list.pt").message
    torch.save({"generator": trained(), "discriminator": trained()}, tmp_path / "gan.pt")
    assert "generator, discriminator" in refuse(tmp_path / "gan.pt").message
