"""Small complete dissections in memory, counted for real: dense masks of random maps against random label maps.

``dissection()`` has two layers, six categories, a dead unit, a unit with NaN, top images with JPEG thumbnails; its
masks, counts, labels and thresholds agree with one another. With ``evidence=True`` it has what was added later, too:
counts by image block, a null of six pairings, and the evidence for each label; with ``effects=True`` the network's
classes, a linear head behind each layer, and what its ablations do; with ``drawn=True`` what a generator's units do to
concepts. ``read_back`` is a store as a dissection again.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from concept_effects_factory import effects_of as concept_effects
from concept_effects_factory import pictures_of
from effects_factory import Scene, classes_of, effects_of, head_of
from PIL import Image

from ndissect.store.bootstrap import block_of, label_intervals, leading
from ndissect.store.concepts import ConceptTable
from ndissect.store.counts import BLOCKS, Blocks, ConceptCounts, LayerCounts
from ndissect.store.evidence import NullBest, null_best
from ndissect.store.model import Dissection, ImageTable, Layer, TopImages, UnitStatistics
from ndissect.store.protocol import PROTOCOLS, Protocol
from ndissect.store.reader import Store
from ndissect.store.scores import Best, best_of_ious, best_per_category, label_units, unit_ious
from ndissect.store.upsampling import make_axis, upsample
from ndissect.store.weighing import weigh
from ndissect.store.writer import write_store
from ndissect.tui.pictures.sheets import unit_sheet
from ndissect.tui.tables import class_units, remarks, selection, views
from ndissect.tui.tables import effects as class_effects
from ndissect.tui.tables.columns import SORTS
from ndissect.tui.tables.units import unit_json

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")
#: number, name, category. No concept is a material, as in a data set whose material column is empty.
CONCEPTS = (
    (1, "red-c", "color"),
    (2, "blue-c", "color"),
    (3, "car", "object"),
    (4, "traffic_light", "object"),
    (7, "señal_de_tráfico", "object"),
    (8, "wheel", "part"),
    (300, "街道-s", "scene"),
    (301, "art_gallery-s", "scene"),
    (700, "striped", "texture"),
)
IMAGES, GRID = 12, (12, 10)
NAMES = tuple(f"ade20k/ünter {i}.jpg" for i in range(IMAGES))
PAIRINGS = 6
DRAWN = 4
LAYERS = {"features.0": (9, (4, 5)), "layer4.1.conv2": (6, (3, 3))}
DEAD, WITH_NAN = 2, 3
#: Of so few pixels half a percent is next to nothing: a twentieth gives every unit a mask.
PROTOCOL = replace(PROTOCOLS["netdissect"], name="netdissect+", q=Fraction(1, 20))


def concept_table(concepts: Sequence[tuple[int, str, str]] = CONCEPTS) -> ConceptTable:
    return ConceptTable(
        np.array([n for n, _, _ in concepts], np.int32),
        tuple(name for _, name, _ in concepts),
        np.array([CATEGORIES.index(k) for _, _, k in concepts], np.int32),
        CATEGORIES,
    )


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (24, 20)) -> bytes:
    """A JPEG of one colour, ``size`` (width, height)."""
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "JPEG", quality=80)
    return out.getvalue()


def provenance() -> dict[str, object]:
    return {
        "command": ["nd", "dissect", "torchvision:resnet18", "--data", "donnée/ü"],
        "network": {"spec": "torchvision:resnet18", "digest": "sha256:00ff"},
        "data": {"images": IMAGES},
        "seconds": {"tally": 1.25},
    }


def dissection(
    *,
    layers: dict[str, tuple[int, tuple[int, int]]] | None = None,
    groups: tuple[str, ...] = ("all",),
    protocol: Protocol = PROTOCOL,
    top: int = 3,
    images: bool = True,
    evidence: bool = False,
    effects: bool = False,
    drawn: bool = False,
    seed: int = 0,
) -> Dissection:
    """A dissection of ``layers`` (name -> units, map size); ``groups`` splits the images into as many equal parts."""
    rng = np.random.default_rng(seed)
    table = concept_table()
    label_maps, image_labels = _labels(rng, table)
    present = _present(label_maps, image_labels, table)
    group = np.arange(IMAGES) % len(groups)
    concept_counts = _concept_counts(present, group, len(groups))
    in_block = np.array([block_of(name) for name in NAMES])
    held = _concept_counts(present, in_block, BLOCKS)
    blocks = Blocks(np.bincount(in_block, minlength=BLOCKS), held.area, held.images)
    found: list[Layer] = []
    for name, (units, size) in (LAYERS if layers is None else layers).items():
        maps = _maps(rng, present, units, size)
        if units > WITH_NAN:
            maps[:, DEAD] = 0
            maps[1, WITH_NAN, 0, 0], maps[4, WITH_NAN, -1, -1] = np.nan, np.inf
        statistics = _statistics(maps, protocol.q)
        axes = (make_axis("half-pixel", size[0], GRID[0]), make_axis("half-pixel", size[1], GRID[1]))
        clean = np.where(np.isfinite(maps), maps, np.float32(np.nan))
        masks = upsample(clean, *axes, protocol.upsampling).astype(np.float64) > statistics.threshold[:, None, None]
        counts = _layer_counts(masks, present, group, len(groups))
        best = _best(counts, concept_counts, protocol, statistics.dead)
        tops = _top(maps, min(top, IMAGES)) if images else None
        layer = Layer(name, "Conv2d", best, statistics, size, counts, tops, axes)
        if evidence:
            leads = leading(
                _layer_counts(masks, present, in_block, BLOCKS),
                _concept_counts(present, in_block, BLOCKS),
                *(table.category, len(CATEGORIES), protocol.union),
                **_choice(protocol, statistics.dead),
            )
            null = _null(masks, present, protocol, statistics.dead)
            weighed = weigh(
                *(best, counts, concept_counts, groups, table, protocol, statistics.dead),
                blocks=blocks,
                leading=leads,
                null=null,
                auprc=_precision(maps, present, best, protocol),
            )
            layer = replace(layer, evidence=weighed, leading=leads, null=null)
        if effects:
            scene = Scene(units, seed=seed)
            singles = tuple((unit,) for unit in range(units))
            ablated = effects_of(scene, (*singles, (0, units - 1)) if units > 1 else singles)
            layer = replace(layer, head=head_of(scene), effects=ablated)
        if drawn:
            of_concepts = concept_effects(len(table), units, tuple(range(min(units, DRAWN))))
            layer = replace(
                layer, concept_effects=of_concepts, effect_pictures=pictures_of(tuple(range(min(units, 2))))
            )
        found.append(layer)
    return Dissection(
        protocol=protocol,
        concepts=table,
        concept_counts=concept_counts,
        layers=tuple(found),
        images=_image_table(label_maps, image_labels) if images else None,
        provenance=provenance(),
        groups=groups,
        grid=GRID,
        blocks=blocks if evidence else None,
        classes=classes_of(Scene(0)) if effects else None,
    )


def _summed(per_image: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    return np.stack([per_image[group == g].sum(0) for g in range(groups)]).astype(np.int64)


def _in_category(present: np.ndarray) -> np.ndarray:
    """(N, K) bool: which images hold a concept of each category."""
    category = concept_table().category
    return np.stack([present[:, category == k].any((1, 2, 3)) for k in range(len(CATEGORIES))], 1)


def _concept_counts(present: np.ndarray, group: np.ndarray, groups: int) -> ConceptCounts:
    return ConceptCounts(_summed(present.sum((2, 3)), group, groups), _summed(present.any((2, 3)), group, groups))


def _layer_counts(masks: np.ndarray, present: np.ndarray, group: np.ndarray, groups: int) -> LayerCounts:
    both = np.einsum("nuyx,ncyx->nuc", masks.astype(np.int64), present.astype(np.int64))
    area = masks.sum((2, 3))
    in_category = area[:, :, None] * _in_category(present)[:, None, :]
    return LayerCounts(*(_summed(x, group, groups) for x in (both, area, in_category)))


def _choice(protocol: Protocol, dead: np.ndarray) -> dict[str, Any]:
    return {"dead": dead, "min_images": protocol.min_images}


def _best(counts: LayerCounts, held: ConceptCounts, protocol: Protocol, dead: np.ndarray) -> Best:
    category = concept_table().category
    return best_per_category(counts, held, category, len(CATEGORIES), protocol.union, **_choice(protocol, dead))


def _null(masks: np.ndarray, present: np.ndarray, protocol: Protocol, dead: np.ndarray) -> NullBest:
    """Masks with the labels of the image one, two ... further on: all images are of one source."""
    rows, together = [], np.zeros(IMAGES, np.int64)
    for shift in range(1, PAIRINGS + 1):
        wrong = np.roll(present, shift, 0)
        held = _concept_counts(wrong, together, 1)
        rows.append(null_best(_best(_layer_counts(masks, wrong, together, 1), held, protocol, dead), held.area[0]))
    return NullBest(*(np.stack(x) for x in zip(*rows, strict=True)))


def _precision(maps: np.ndarray, present: np.ndarray, best: Best, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    label, _ = label_units(best)
    held, searched = present.any((2, 3)), _in_category(present)
    peaks = np.where(np.isfinite(maps), maps, -np.inf).max((2, 3))
    found = np.full((2, len(label)), np.nan)
    for u in np.flatnonzero(label >= 0):
        category = concept_table().category[label[u]]
        ranked = searched[:, category] if protocol.union == "within-category" else np.ones(IMAGES, bool)
        found[0, u] = average_precision(peaks[ranked, u], held[ranked, label[u]])
        found[1, u] = held[ranked, label[u]].mean()
    return found[0], found[1]


def average_precision(score: np.ndarray, relevant: np.ndarray) -> float:
    """Over every relevant image, the share of relevant ones among those that score no less, on average."""
    return float(np.mean([relevant[score >= score[i]].mean() for i in np.flatnonzero(relevant)]))


def _labels(rng: np.random.Generator, table: ConceptTable) -> tuple[np.ndarray, np.ndarray]:
    """(N, M, H, W) label maps of blocks, two maps an image, and (N, L) image labels."""
    pixel = [int(n) for n, k in zip(table.number, table.category, strict=True) if CATEGORIES[k] not in ("scene",)]
    choice = np.array([0, 0, *pixel], np.uint16)
    blocks = choice[rng.integers(0, len(choice), (IMAGES, 2, 4, 5))]
    maps = blocks.repeat(GRID[0] // 4, 2).repeat(GRID[1] // 5, 3)
    labels = np.zeros((IMAGES, 2), np.uint16)
    labels[:, 0] = np.where(np.arange(IMAGES) % 3 == 0, 300, 301)
    labels[::4, 1] = 700
    labels[5] = 0
    return maps, labels


def _present(label_maps: np.ndarray, image_labels: np.ndarray, table: ConceptTable) -> np.ndarray:
    """(N, C, H, W) bool."""
    number = table.number[None, :, None, None, None]
    in_maps = (label_maps[:, None] == number).any(2)
    everywhere = (image_labels[:, None, :] == table.number[None, :, None]).any(2)
    return np.asarray(in_maps | everywhere[:, :, None, None])


def _maps(rng: np.random.Generator, present: np.ndarray, units: int, size: tuple[int, int]) -> np.ndarray:
    """(N, U, h, w) float32 >= 0: unit u answers to concept u (modulo their number), with noise."""
    y = (2 * np.arange(size[0]) + 1) * GRID[0] // (2 * size[0])
    x = (2 * np.arange(size[1]) + 1) * GRID[1] // (2 * size[1])
    there = present[:, np.arange(units) % present.shape[1]][:, :, y[:, None], x]
    noise = rng.normal(0, 0.3, (len(present), units, *size))
    return np.asarray(np.maximum(there + noise, 0), np.float32)


def _statistics(maps: np.ndarray, q: Fraction) -> UnitStatistics:
    flat = maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], maps[:, 0].size if maps.size else 0)
    finite = [row[np.isfinite(row)].astype(np.float64) for row in flat]
    high = np.array([row.max() for row in finite], np.float64)
    low = np.array([row.min() for row in finite], np.float64)
    return UnitStatistics(
        threshold=np.array([np.quantile(row, 1 - float(q), method="hazen") for row in finite], np.float64),
        dead=(high == low) | (high <= 0),
        nan=np.isnan(flat).sum(1),
        inf=np.isinf(flat).sum(1),
        minimum=low.astype(np.float32),
        maximum=high.astype(np.float32),
    )


def _top(maps: np.ndarray, count: int) -> TopImages:
    finite = np.where(np.isfinite(maps), maps, -np.inf)
    peaks = finite.max((2, 3)).T  # (U, N)
    order = np.argsort(-peaks, axis=1, kind="stable")[:, :count]
    image, peak = order.astype(np.int32), np.take_along_axis(peaks, order, 1).astype(np.float32)
    kept = np.stack([maps[order[u], u] for u in range(maps.shape[1])]) if maps.shape[1] else maps[:0, :count]
    if len(image) > WITH_NAN and count:  # as where fewer images than asked for had a finite peak
        image[WITH_NAN, -1], peak[WITH_NAN, -1] = -1, np.nan
    return TopImages(image, peak, kept.reshape(len(image), count, *maps.shape[2:]))


def _image_table(label_maps: np.ndarray, image_labels: np.ndarray) -> ImageTable:
    return ImageTable(
        index=np.arange(IMAGES, dtype=np.int64) * 1000,
        name=NAMES,
        split=tuple("val" if i % 4 == 3 else "train" for i in range(IMAGES)),
        thumbnail=tuple(jpeg((20 * i, 255 - 20 * i, 90)) for i in range(IMAGES)),
        label_maps=label_maps,
        image_labels=image_labels,
    )


def without_counts(made: Dissection) -> Dissection:
    """The same as of a table that tells IoUs alone: no counts, no images."""
    layers = []
    for layer in made.layers:
        assert layer.counts is not None
        areas = [x.sum(0) for x in (layer.counts.intersection, layer.counts.area, layer.counts.area_in_category)]
        ious = unit_ious(*areas, made.concept_counts.area.sum(0), made.concepts.category, made.protocol.union)
        ious[layer.statistics.dead] = 0
        best = best_of_ious(ious, made.concepts.category, len(made.concepts.categories))
        bare = Layer(layer.name, layer.module, best, layer.statistics, ious=ious)
        layers.append(replace(bare, concept_effects=layer.concept_effects))
    held = np.zeros((1, len(made.concepts)), np.int64)
    counts = ConceptCounts(held, held - 1)
    return replace(made, layers=tuple(layers), concept_counts=counts, images=None, groups=("all",), grid=None)


def write_small(path: Path, **changes: object) -> Path:
    """``dissection(**changes)`` written to ``path``."""
    write_store(path, dissection(**changes))  # type: ignore[arg-type]
    return path


def read_back(path: Path) -> Dissection:
    """All that the store at ``path`` holds, through the public reader."""
    with Store(path) as store:
        images = None
        if store.has_images:
            with h5py.File(path) as f:
                count, labels = f["images/image_labels"].shape
            rows = [store.images.read(i) for i in range(count)]
            padded = [list(r.labels) + [0] * (labels - len(r.labels)) for r in rows]
            images = ImageTable(
                index=np.array([r.index for r in rows], np.int64),
                name=tuple(r.name for r in rows),
                split=tuple(r.split for r in rows),
                thumbnail=tuple(r.thumbnail for r in rows),
                label_maps=np.stack([r.label_maps for r in rows]),
                image_labels=np.array(padded, np.uint16).reshape(count, labels),
            )
        return Dissection(
            protocol=store.protocol,
            concepts=store.concepts,
            concept_counts=store.concept_counts,
            layers=tuple(store.layer(name).load() for name in store.layer_names),
            images=images,
            provenance=store.provenance,
            groups=store.groups,
            grid=store.grid,
            blocks=store.blocks,
            classes=store.classes,
        )


def assert_same(got: object, expected: object, where: str = "dissection") -> None:
    """Equal in every field, array, type of number and NaN; the error names the field."""
    assert type(got) is type(expected), where
    if is_dataclass(got):
        for field in fields(got):
            assert_same(getattr(got, field.name), getattr(expected, field.name), f"{where}.{field.name}")
    elif isinstance(got, np.ndarray):
        assert isinstance(expected, np.ndarray)
        assert got.dtype == expected.dtype, where
        np.testing.assert_array_equal(got, expected, err_msg=where)
    elif isinstance(got, tuple):
        assert isinstance(expected, tuple)
        assert len(got) == len(expected), where
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_same(a, b, f"{where}[{i}]")
    else:
        assert got == expected, where


def visit(path: Path, *, sheets: bool = True) -> int:
    """Look at all that ``nd`` shows of the store at ``path``, drawn too if ``sheets``; how many units that was."""
    with Store(path) as store:
        store.protocol.describe()
        assert isinstance(store.provenance, dict)
        layers = [store.layer(name) for name in store.layer_names]
        for view in layers:
            for sort in SORTS:
                selection.select_units(view, selection.Filter(), sort)
            remarks.summary_lines(view)
            for unit in range(min(view.units, 9)):
                unit_json(view, unit)
                class_effects.unit_sentences(view, unit)
                class_effects.unit_json(view, unit)
                views.best_json(view, unit)
                views.ranked_concepts(view, unit)
                views.top_images(view, unit)
                for row in view.peaks(unit)[0] if view.has_top else ():
                    store.images.read(int(row))
            if view.has_top and view.units:
                assert view.masks(0).ndim == 3
                if sheets:
                    unit_sheet(view, 0, truth=bool(view.labels[0][0] >= 0))
            view.load()
            if view.leading is not None and store.blocks is not None:
                for shares in (*label_intervals(view.leading, store.blocks, view.labels[0]),):
                    assert len(shares) == view.units
            if view.null is not None:
                assert view.null.iou.shape == (view.pairings, view.units)
        if store.classes is not None:
            numbers = range(len(store.classes.names))
            class_units.class_table(layers, numbers)
            for k in numbers[:9]:
                class_units.units_of_class(layers, k)
                class_units.class_sentence(layers, k)
            class_effects.effects_notes(layers)
        rows = selection.match_concepts(store.concepts, None)
        views.concept_table(layers, rows, 0.04)
        for row in rows:
            views.units_of_concept(layers, int(row))
        return sum(view.units for view in layers)


def outline(path: Path) -> list[str]:
    """One line for every group and dataset of an HDF5 file: name, type, shape, attributes, and strings in full."""
    lines: list[str] = []

    def add(item: h5py.Group | h5py.Dataset, depth: int) -> None:
        indent, name = "  " * depth, item.name.rpartition("/")[2]
        if isinstance(item, h5py.Dataset):
            shape = " x ".join(map(str, item.shape)) or "scalar"
            lines.append(f"{indent}{name}: {type_name(item.dtype)}, {shape}{_strings(item)}")
            return
        lines.append(f"{indent}{name}/")
        lines.extend(f"{indent}  @{key}: {plain(value)}" for key, value in sorted(item.attrs.items()))
        for key in sorted(item):
            add(item[key], depth + 1)

    with h5py.File(path, "r") as f:
        add(f, 0)
    return lines


def type_name(dtype: np.dtype) -> str:
    """``string`` or numpy's name of the type."""
    return "string" if dtype.kind == "S" else str(dtype.name)


def plain(value: object) -> str:
    """An attribute's value as text."""
    if isinstance(value, bytes):
        return value.decode()
    return " x ".join(map(str, value)) if isinstance(value, np.ndarray) else str(value)


def _strings(data: h5py.Dataset) -> str:
    if data.dtype.kind != "S":
        return ""
    if data.shape == ():
        return f" = {data[()].decode()}"
    return " = " + ", ".join(v.decode() for v in data[:3]) + (", ..." if len(data) > 3 else "")
