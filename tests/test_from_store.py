"""The network and the data of a store, opened again from its provenance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from class_factory import write_labelled, write_network
from safetensors.torch import save_file
from store_factory import dissection

from ndissect.engine.data.formats import open_dataset
from ndissect.engine.machine.console import Console
from ndissect.engine.networks.resolve import load_network
from ndissect.engine.run.existing import asked_for
from ndissect.engine.run.from_store import demand_same_weights, options_json, stored_options, told_of_code
from ndissect.engine.run.merged_store import merge_to_store
from ndissect.engine.run.network_loader import network_loader
from ndissect.engine.run.options import Options
from ndissect.engine.run.to_store import dissect_to_store
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.paused import shard_folder
from ndissect.store.reader import Store
from ndissect.store.writer import write_store

ARCHIVE = Path(__file__).with_name("archive")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with net.py, w.safetensors, data and the store of a dissection that was started in it."""
    folder = tmp_path_factory.mktemp("run")
    spec = write_network(folder)
    write_labelled(folder / "data")
    state = load_network(f"{spec}network").module.state_dict()
    save_file({f"ema.{name}": 2 * value for name, value in state.items()}, folder / "w.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = Options(
            network="net.py:network",
            data="data",
            layers=("units",),
            weights=Path("w.safetensors"),
            weights_prefix="ema.",
            device="cpu",
            quantile="0.2",
        )
        dissect_to_store(options, Console(), output=folder / "s.nd.h5")
    return folder


@pytest.fixture
def store(written: Path) -> Iterator[Store]:
    with Store(written / "s.nd.h5") as opened:
        yield opened


def with_provenance(folder: Path, record: dict[str, Any]) -> Path:
    write_store(folder / "other.nd.h5", replace(dissection(), provenance=record))
    return folder / "other.nd.h5"


def stored(folder: Path, record: dict[str, Any], given: Options | None = None, network: str | None = None) -> Options:
    with Store(with_provenance(folder, record)) as opened:
        return stored_options(opened, given or Options(), network)


def test_a_store_opens_its_network_and_data_from_anywhere(
    store: Store, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = stored_options(store, Options())
    assert options.network == f"{written / 'net.py'}:network"
    assert options.weights == written / "w.safetensors"
    assert options.data == str(written / "data")
    assert options.weights_prefix == "ema."
    assert (options.device, options.layers, options.quantile) == ("auto", (), None)
    network = network_loader(options)()
    assert demand_same_weights(store, network, anyway=False) == ()
    assert torch.equal(network.module.scores.weight, 2 * torch.eye(3))


def test_a_store_that_was_merged_says_the_same(
    store: Store, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(written)
    told = dict(store.provenance["options"])
    options = Options(**told | {"weights": Path(told["weights"]), "layers": ("units",)})
    dissect_to_store(options, Console(), output=tmp_path / "m.nd.h5", shard="1/1")
    merge_to_store([shard_folder(tmp_path / "m.nd.h5", "1/1")], tmp_path / "m.nd.h5", Options(), Console())
    monkeypatch.chdir(tmp_path)
    with Store(tmp_path / "m.nd.h5") as merged:
        assert stored_options(merged, Options()) == stored_options(store, Options())


def test_other_names_of_classes_are_another_request(written: Path, tmp_path: Path) -> None:
    dataset, names = open_dataset(written / "data"), tmp_path / "names.txt"
    asked = [asked_for(Options(), Options().make_protocol(), dataset)]
    for text in ("a\nb\n", "a\nc\n"):
        names.write_text(text, encoding="utf-8")
        options = Options(classes=names)
        asked.append(asked_for(options, options.make_protocol(), dataset))
    plain, first, second = asked
    assert "classes" not in plain
    assert first["classes"] != second["classes"]
    assert {name: value for name, value in first.items() if name != "classes"} == plain


def test_what_is_given_takes_the_place_of_what_is_stored(store: Store, written: Path) -> None:
    given = Options(data="elsewhere", weights=Path("x.pt"), batch_size=3, skip_bad=True)
    options = stored_options(store, given)
    assert (options.data, options.weights, options.batch_size, options.skip_bad) == ("elsewhere", Path("x.pt"), 3, True)
    moved = stored_options(store, Options(), "moved/net.py:network")
    assert (moved.network, moved.weights_prefix) == ("moved/net.py:network", "ema.")
    other = stored_options(store, Options(), "torchvision:resnet18@none")
    assert (other.network, other.weights, other.data) == ("torchvision:resnet18@none", None, str(written / "data"))


def test_records_from_before_are_read_from_what_is_there(store: Store, written: Path, tmp_path: Path) -> None:
    record = json.loads(json.dumps(dict(store.provenance)))
    del record["options"]
    record["asked"]["transform"] = ["32", "0.5,0.5,0.5", None, True]
    record["asked"]["map"] = "units last"
    record["network"]["origin"]["functional"] = "torch.fx"
    options = stored(tmp_path, record)
    assert options.weights == written / "w.safetensors"
    assert (options.weights_prefix, options.data) == ("ema.", str(written / "data"))
    assert (options.size, options.mean, options.std, options.bgr) == ("32", "0.5,0.5,0.5", None, True)
    assert (options.map, options.functional) == ("units last", True)


def test_other_weights_are_refused_unless_anyway(store: Store) -> None:
    network = network_loader(replace(stored_options(store, Options()), weights=None, weights_prefix=None))()
    with pytest.raises(WrongUse, match=r"are of other weights than those of .*net.py:network\n.*--anyway goes on"):
        demand_same_weights(store, network, anyway=False)
    (note,) = demand_same_weights(store, network, anyway=True)
    assert "other weights" in note


def test_code_that_has_changed_is_told(store: Store, written: Path, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text((written / "net.py").read_text() + "\n# changed\n")
    network = network_loader(stored_options(store, Options(), f"{tmp_path / 'net.py'}:network"))()
    (note,) = demand_same_weights(store, network, anyway=False)
    assert "code" in note
    assert "has changed" in note


def test_the_code_that_a_store_names_is_told(store: Store, written: Path, tmp_path: Path) -> None:
    options = stored_options(store, Options())
    (told,) = told_of_code(store, options, Options())
    assert told == f"the code of {written / 'net.py'} is run: s.nd.h5 names it as its network"
    named = f"{written / 'net.py'}:network"
    assert told_of_code(store, options, Options(), named) == ()
    origin = {"kind": "file", "sha256": "0" * 64}
    record = {"folder": str(written), "network": {"spec": "net.py:network", "origin": origin}}
    record["options"] = {"map": "rules/cut.py:rule", "labeller": "label.py:make"}
    with Store(with_provenance(tmp_path, record)) as other:
        ours = Options(map="mine.py:rule")
        network, labeller = told_of_code(other, stored_options(other, ours), ours)
        assert network.endswith("it has changed since the labels were made")
        assert labeller == f"the code of {written / 'label.py'} is run: other.nd.h5 names it as its --labeller"
        rule = told_of_code(other, stored_options(other, Options()), Options())[-1]
        assert f"{written / 'rules/cut.py'} is run" in rule
    with Store(with_provenance(tmp_path, {"network": {"spec": "antigravity:fly"}})) as other:
        (told,) = told_of_code(other, stored_options(other, Options()), Options())
        assert told.startswith("the code of the module antigravity is run")


def test_paths_of_a_store_are_relative_to_the_folder_of_its_run_alone(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = {"spec": "net.py:network", "origin": {"weights_file": "w.safetensors"}}
    there = stored(tmp_path, {"folder": str(written), "network": network})
    assert (there.network, there.weights) == (f"{written / 'net.py'}:network", written / "w.safetensors")
    (tmp_path / "net.py").touch()
    with pytest.raises(NDError, match=f"they were in {tmp_path / 'w.safetensors'}"):
        stored(tmp_path, {"folder": f"..{written}", "network": network})
    with pytest.raises(NDError, match="the network of the store is gone"):
        stored(tmp_path, {"network": {"spec": "~nobody/net.py:network"}})


def test_files_that_are_gone_are_told_with_where_they_were(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "run")
    record: dict[str, Any] = {}
    with Store(written / "s.nd.h5") as opened:
        record = json.loads(json.dumps(dict(opened.provenance)).replace(str(written), str(tmp_path / "run")))
    for name, said, hint in (
        ("net.py", "net.py", "--network path/net.py:network"),
        ("w.safetensors", "weights of the network", "--weights FILE"),
        ("data", "images of the store are gone", "--data FOLDER"),
    ):
        (tmp_path / "run" / name).rename(tmp_path / "moved")
        with pytest.raises(NDError, match=said) as error:
            stored(tmp_path, record)
        assert str(tmp_path / "run" / name) in error.value.message
        assert hint in error.value.hint
        if name == "data":
            with Store(with_provenance(tmp_path, record)) as opened:
                assert stored_options(opened, Options(), with_data=False).weights_prefix == "ema."
        (tmp_path / "moved").rename(tmp_path / "run" / name)


def test_imported_tables_need_a_network(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match=r"does not say which network\b.*\n.*--network NETWORK"):
        stored(tmp_path, {"imported": "tally.csv"})
    assert stored(tmp_path, {}, network="demo").network == "demo"


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
def test_archived_stores_name_their_network(version: str) -> None:
    with Store(ARCHIVE / f"store-{version}.h5") as opened:
        options = stored_options(opened, Options())
        assert options == Options(network="torchvision:resnet18")
        network = load_network("demo")
        (note,) = demand_same_weights(opened, network, anyway=False)
        assert "does not tell which weights" in note


def test_a_labellers_store_and_the_demos_data(tmp_path: Path) -> None:
    labelled = {
        "folder": str(tmp_path),
        "network": {"spec": "demo"},
        "options": {"labeller": "parse.py:net", "colors": True, "data": "photos"},
        "data": {"name": "photos", "path": "photos", "colors": "model"},
    }
    (tmp_path / "photos").mkdir()
    options = stored(tmp_path, labelled)
    assert (options.labeller, options.colors) == (f"{tmp_path / 'parse.py'}:net", True)
    assert options.data == str(tmp_path / "photos")
    demo = stored(tmp_path, {"network": {"spec": "demo"}, "data": {"name": "demo-1", "path": "/gone/demo-1"}})
    assert demo == Options()


def test_what_a_record_says_wrongly_is_not_used(tmp_path: Path) -> None:
    options = {"network": 3, "bgr": "yes", "size": ["1"], "max_pixels": -1, "labeller_min": "x", "unknown": 1, "top": 5}
    record = {"network": {"spec": "demo", "origin": 5}, "data": ["a"], "asked": {"transform": 3}, "options": options}
    assert stored(tmp_path, record) == Options()


def test_options_as_json_hold_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = options_json(Options(layers=("a", "b"), weights=Path("w.pt"), bgr=True))
    assert told == {"layers": ["a", "b"], "weights": str(tmp_path / "w.pt"), "bgr": True}
    assert options_json(Options()) == {}
    json.dumps(told)
