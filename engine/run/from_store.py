"""The network and the data of a store, opened again: the options of the run that wrote it, from its provenance."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ndissect.engine.networks.spec import parse_spec
from ndissect.engine.run.options import Options
from ndissect.store.errors import NDError, WrongUse
from ndissect.store.reader import Store
from ndissect.store.regular import open_regular

if TYPE_CHECKING:
    from ndissect.engine.networks.resolve import Network

#: What of a run's options opens its network and its data again. How the machine was used then says nothing of now.
_NETWORK = (
    "network", "weights", "weights_key", "weights_prefix", "partial", "size", "mean", "std", "bgr", "classes",
    "max_weights",
)  # fmt: skip
_DATA = (
    "data", "format", "labeller", "labeller_classes", "labeller_min", "labeller_size", "colors", "max_pixels",
    "generator", "samples", "seed", "truncation", "latent", "latents", "encode", "class_of",
)  # fmt: skip
#: Of these, files.
_PATHS = ("weights", "classes", "labeller_classes", "latents")
_REOPENED = (*_NETWORK, *_DATA, "map", "functional", "skip_bad")
_FIELDS = {field.name: field for field in fields(Options)}
_DEFAULTS = asdict(Options())


def options_json(options: Options) -> dict[str, Any]:
    """The options that differ from their defaults, as JSON values; paths are absolute."""
    return {
        name: os.path.abspath(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value  # noqa: PTH100 - links stay
        for name, value in vars(options).items()
        if value != _DEFAULTS[name]
    }


def stored_options(store: Store, given: Options, network: str | None = None, *, with_data: bool = True) -> Options:
    """The options that open the network and the data of ``store`` again, as :func:`recorded_options` has them."""
    return recorded_options(store.provenance, store.path, given, network, with_data=with_data)


def recorded_options(
    record: Mapping[str, Any], path: Path, given: Options, network: str | None = None, *, with_data: bool = True
) -> Options:
    """The options that open the network and the data again of which ``record`` tells, the provenance of what lies at
    ``path``; what differs from a default in ``given`` and ``network``, where it is named, takes the place of it.

    WrongUse where neither names a network; NDError where a file of it is gone, with where it was and how to say where
    it is now. The data are looked for when they are opened, and not at all without ``with_data``: other images are
    used then, and those of the store need not be there.
    """
    known = dict(_inside(record, "options")) | _derived(record)
    own = {name: value for name, value in known.items() if name in _REOPENED and _fits(name, value)}
    folder = _folder(record)
    changed = {name: value for name, value in vars(given).items() if value != _DEFAULTS[name] and name != "network"}
    if network is not None:
        if _is_other(network, own.get("network")):
            own = {name: value for name, value in own.items() if name not in _NETWORK}
        changed["network"] = network
    elif "network" not in own:
        raise WrongUse(f"{path} does not say which network its labels are of", "name it: --network NETWORK")
    else:
        own["network"] = _network_at(str(own["network"]), record, folder)
    for name in _PATHS:
        if name in own:
            own[name] = str(folder / own[name])
    if "weights" not in changed and "weights" in own and not os.path.exists(own["weights"]):  # noqa: PTH110 - Path.exists raises where a name is too long
        raise NDError(
            f"the weights of the network of {path} are gone: they were in {own['weights']}",
            "--weights FILE says where they are now",
        )
    if not with_data:
        own.pop("data", None)
    if "encode" in own and os.path.isdir(folder / str(own["encode"])):  # noqa: PTH112 - likewise
        own["encode"] = str(folder / str(own["encode"]))
    if own.get("generator"):
        own.pop("data", None)  # it draws its own
    if "data" not in changed and "data" in own:
        own["data"] = _data_at(str(folder / own["data"]), record)
    for name in ("labeller", "map"):
        if name in own:
            own[name] = _python_file(str(own[name]), folder)
    if "classes" in own and not os.path.exists(own["classes"]):  # noqa: PTH110 - likewise
        del own["classes"]  # the names are a convenience; the network's own, or numbers, take their place
    values = own | changed
    return replace(Options(), **{name: _value(name, value) for name, value in values.items()})


def told_of_code(store: Store, options: Options, given: Options, network: str | None = None) -> tuple[str, ...]:
    """What a user should know before the code is run that ``store`` names, a line for each file or module.

    ``options``: as :func:`stored_options` made them of ``given`` and ``network``; what these name, the user has named.
    """
    told = []
    if network is None:
        spec = parse_spec(options.network)
        if spec.scheme == "module":
            told.append(f"the code of the module {spec.target} is run: {store.path.name} names it as its network")
        if spec.scheme == "file":
            file = Path(os.path.expanduser(spec.target))  # noqa: PTH111 - Path.expanduser raises where nobody is called so
            told.append(f"the code of {file} is run: {store.path.name} names it as its network")
            recorded = _inside(_inside(store.provenance, "network"), "origin").get("sha256")
            if recorded is not None and recorded != _sha256(file):
                told[-1] += "; it has changed since the labels were made"
    for name in ("labeller", "map"):
        written = str(getattr(options, name) or "").rpartition(":")[0]
        if getattr(given, name) == _DEFAULTS[name] and written.endswith(".py"):
            told.append(f"the code of {written} is run: {store.path.name} names it as its --{name}")
    return tuple(told)


def demand_same_weights(store: Store, network: Network, *, anyway: bool) -> tuple[str, ...]:
    """Nothing where ``network`` is the one that the labels of ``store`` are of, or a note where that is not known.

    WrongUse where its weights are others, unless ``anyway``.
    """
    there = _inside(store.provenance, "network")
    digest = there.get("weights_digest")
    if not isinstance(digest, str) or not digest:
        return (f"{store.path.name} does not tell which weights its labels are of: nothing was compared",)
    if digest == network.digest:
        code = _inside(there, "origin").get("sha256")
        changed = code is not None and code != network.origin.get("sha256")
        return (f"the code of {network.spec} has changed since its labels were made",) if changed else ()
    what = f"the labels of {store.path} are of other weights than those of {network.spec}"
    if not anyway:
        raise WrongUse(
            what,
            f"they are of {there.get('spec') or 'another network'}: -s STORE names the store of this network, "
            "nd dissect makes one, --anyway goes on",
        )
    return (f"{what}: units may be called wrongly",)


def demand_same_labeller(store: Store, digest: str | None, *, anyway: bool) -> tuple[str, ...]:
    """Nothing where the labels of ``store`` are of a network with this digest, or a note where that is not known.

    WrongUse where they are of another, unless ``anyway``. ``digest``: None where no network labels.
    """
    there = _inside(_inside(store.provenance, "data"), "labeller").get("digest")
    if there == digest:
        return ()
    what = f"what labels pictures is not what made the labels of {store.path}"
    if isinstance(there, str) and there and not anyway:
        raise WrongUse(what, "--labeller says what did, nd dissect makes a store of the new one, --anyway goes on")
    return (f"{what}: shares may be counted otherwise than IoUs were",)


def _derived(record: Mapping[str, Any]) -> dict[str, Any]:
    """What of the options can be read from the rest of a record, whenever it was written."""
    network, data, asked = (_inside(record, name) for name in ("network", "data", "asked"))
    origin = _inside(network, "origin")
    known: dict[str, Any] = {"network": network.get("spec"), "weights": origin.get("weights_file")}
    known |= {"weights_key": origin.get("weights_key"), "weights_prefix": origin.get("weights_prefix")}
    known |= {name: asked.get(name) for name in ("partial", "map", "functional")}
    known["functional"] = known["functional"] or "functional" in origin
    for names, key in ((("size", "mean", "std", "bgr"), "transform"), (("labeller",), "labels")):
        values = asked.get(key)
        known |= dict(zip(names, values, strict=False)) if isinstance(values, list) else {}
    colors = "colors" in data
    known |= {"format": data.get("format"), "colors": colors, "data": data.get("path")}
    return {name: value for name, value in known.items() if value not in (None, "", False)}


def _folder(record: Mapping[str, Any]) -> Path:
    """Where the run was started, which paths in its record are relative to; the current folder where none is known."""
    folder = record.get("folder")
    return Path(folder) if isinstance(folder, str) and os.path.isabs(folder) else Path.cwd()  # noqa: PTH117 - likewise


def _sha256(file: Path) -> str:
    """The digest of a file that is there; "" of what cannot be read, which loading it tells."""
    try:
        with open_regular(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, NDError):
        return ""


def _inside(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def _fits(name: str, value: Any) -> bool:
    """Whether ``value``, which a file says, can be that of the field ``name``; what is no such value is not used."""
    default = _FIELDS[name].default
    if default is MISSING:
        return False
    if isinstance(default, bool):
        return isinstance(value, bool)
    if name == "labeller_min":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    if name == "truncation":
        return isinstance(value, float) and 0 < value < math.inf
    if name in ("samples", "seed"):
        return isinstance(value, int) and not isinstance(value, bool)
    if name == "max_pixels":
        return isinstance(value, int) and not isinstance(value, bool) and value > 0
    return isinstance(value, str) and bool(value) and "\0" not in value


def _value(name: str, value: Any) -> Any:
    return Path(value) if name in _PATHS and isinstance(value, str) else value


def _is_other(named: str, stored: Any) -> bool:
    """Whether ``named`` is another network than the one that was ``stored``, and not the same one elsewhere."""
    return named != stored and named.rpartition(":")[2] != str(stored).rpartition(":")[2]


def _network_at(spec: str, record: Mapping[str, Any], folder: Path) -> str:
    """``spec`` as it is written from the current folder; NDError where its Python file is gone."""
    parsed = parse_spec(spec)
    origin = _inside(_inside(record, "network"), "origin")
    file = str(origin.get("file") or "")
    if parsed.scheme == "file":
        path = Path(_python_file(spec, folder).rpartition(":")[0])
        if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises where a name is too long
            raise NDError(
                f"the network of the store is gone: it was {parsed.detail} of {path}",
                f"say where it is now: --network path/{path.name}:{parsed.detail}",
            )
        return f"{path}:{parsed.detail}"
    # A module of the folder that the run was started in, not of what is installed.
    if (
        parsed.scheme == "module"
        and file.endswith(".py")
        and folder != Path.cwd()
        and Path(file).is_relative_to(folder)
    ):
        return f"{file}:{parsed.detail}"
    if parsed.scheme in ("hf", "timm"):
        prefix, _, target = spec.rpartition(":")
        if not Path(target).is_absolute() and not os.path.isdir(target) and os.path.isdir(folder / target):  # noqa: PTH112 - likewise
            return f"{prefix}:{folder / target}"
    return spec


def _python_file(text: str, folder: Path) -> str:
    """``net.py:factory`` with the whole path of its file; anything else as it is."""
    file, colon, name = text.rpartition(":")
    if not colon or not file.endswith(".py"):
        return text
    return f"{folder / os.path.expanduser(file)}:{name}"  # noqa: PTH111 - Path.expanduser raises where nobody is called so


def _data_at(path: str, record: Mapping[str, Any]) -> str | None:
    """The folder of the store's data, ``path``, or that of its name where it was downloaded; None for the demo's, which
    are made again where they are gone. NDError where there is none."""
    if os.path.isdir(path):  # noqa: PTH112 - likewise
        return path
    from ndissect.engine.data.formats import find_dataset  # noqa: PLC0415 - hardly ever needed

    name = str(_inside(record, "data").get("name") or "")
    if name.startswith("demo-"):
        return None
    try:
        return str(find_dataset(name))
    except NDError as e:
        raise NDError(
            f"the images of the store are gone: they were in {path}",
            "--data FOLDER says where they are now, --images DIR names others",
        ) from e
