"""Small trees of public data sets, written as their archives unpack, with what is known of every pixel.

Each function writes under ``folder`` and returns it. Images are noise, but where pixels are given.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (24, 32)
#: Two of the categories of COCO, and one that is no thing.
CATEGORIES = ({"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 184, "name": "tree-merged"})


def save_image(path: Path, size: tuple[int, int] = SIZE, pixels: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is None:
        pixels = np.random.default_rng(len(path.name)).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def save_numbers(path: Path, numbers: Any, palette: bool = False) -> None:
    """A grey PNG, or one with a palette, of these numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(numbers, np.uint8))
    if palette:
        image = image.convert("L").copy()
        image.putpalette([k * 7 % 256 for k in range(768)])
    image.save(path)


def save_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def patches(*boxes: tuple[int, int, int, int, int], size: tuple[int, int] = SIZE) -> np.ndarray:
    """A map of numbers: (number, top, left, bottom, right) each, later ones over earlier ones."""
    numbers = np.zeros(size, np.int64)
    for number, top, left, bottom, right in boxes:
        numbers[top:bottom, left:right] = number
    return numbers


def coco_images(names: Sequence[str], size: tuple[int, int] = SIZE) -> list[dict[str, Any]]:
    return [{"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, name in enumerate(names, 1)]


def write_instances(
    folder: Path,
    annotations: Mapping[str, Sequence[tuple[int, Any]]],
    part: str = "val2017",
    categories: Sequence[Mapping[str, Any]] = CATEGORIES,
) -> Path:
    """``annotations``: by the name of an image the category and the segmentation of each instance."""
    entries = [
        {"id": 100 + i, "image_id": image, "category_id": category, "segmentation": mask, "iscrowd": 0, "bbox": [0] * 4}
        for i, (image, category, mask) in enumerate(
            (image, *instance) for image, name in enumerate(annotations, 1) for instance in annotations[name]
        )
    ]
    for name in annotations:
        save_image(folder / part / name)
    content = {"images": coco_images(list(annotations)), "annotations": entries, "categories": list(categories)}
    save_json(folder / "annotations" / f"instances_{part}.json", content)
    return folder


def write_panoptic(
    folder: Path,
    maps: Mapping[str, np.ndarray],
    segments: Mapping[int, int],
    part: str = "val2017",
    pixels: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """``maps``: by the name of an image the number of the segment of each pixel; ``segments``: their categories."""
    entries = []
    for image, (name, ids) in enumerate(maps.items(), 1):
        png = Path(name).with_suffix(".png").name
        save_image(folder / part / name, ids.shape, None if pixels is None else pixels[name])
        colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1).astype(np.uint8)
        save_image(folder / "annotations" / f"panoptic_{part}" / png, pixels=colours)
        listed = [{"id": n, "category_id": segments[n], "iscrowd": 0} for n in np.unique(ids).tolist() if n in segments]
        entries.append({"image_id": image, "file_name": png, "segments_info": listed})
    content = {"images": coco_images(list(maps)), "annotations": entries, "categories": list(CATEGORIES)}
    save_json(folder / "annotations" / f"panoptic_{part}.json", content)
    return folder


def write_scene_parsing(
    folder: Path, maps: Mapping[str, Any], scenes: Mapping[str, str] | None = None, names: Sequence[str] = ()
) -> Path:
    """``maps``: by ``training/ADE_train_00000001`` and the like the numbers of an image; ``names``: of 1, 2, ..."""
    for name, numbers in maps.items():
        save_image(folder / "images" / f"{name}.jpg", np.shape(numbers))
        save_numbers(folder / "annotations" / f"{name}.png", numbers)
    header = "Idx\tRatio\tTrain\tVal\tName"
    rows = [f"{i}\t0.1\t10\t5\t{name} " for i, name in enumerate(names or ("wall", "building, edifice", "sky"), 1)]
    (folder / "objectInfo150.txt").write_text("\n".join([header, *rows]))
    if scenes is not None:
        (folder / "sceneCategories.txt").write_text("".join(f"{k} {v}\n" for k, v in scenes.items()))
    return folder


def write_ade20k(
    folder: Path,
    place: str,
    levels: Sequence[np.ndarray],
    objects: Sequence[tuple[int, str, int]],
    scene: Sequence[str],
) -> Path:
    """One image ``place``, as ``training/urban/street/ADE_train_00000001``, of the release of 2021.

    ``levels``: class numbers, of the objects first; ``objects``: number, name and level of each.
    """
    base = folder / "images" / "ADE" / place
    save_image(base.with_suffix(".jpg"), levels[0].shape)
    for level, numbers in enumerate(levels):
        colours = np.stack([numbers // 256 * 10, numbers % 256, numbers % 7], -1).astype(np.uint8)
        ending = f"parts_{level}" if level else "seg"
        save_image(base.with_name(f"{base.name}_{ending}.png"), pixels=colours)
    listed = [
        {"id": i, "name": name, "name_ndx": number, "raw_name": name, "parts": {"part_level": level}}
        for i, (number, name, level) in enumerate(objects)
    ]
    annotation = {"filename": f"{base.name}.jpg", "scene": list(scene), "object": listed}
    # As in the release, where a few words of annotators are in Latin-1.
    base.with_suffix(".json").write_bytes(json.dumps({"annotation": annotation}, ensure_ascii=False).encode("latin-1"))
    save_numbers(base / f"instance_000_{base.name}.png", np.zeros(SIZE))
    return folder


def write_voc(folder: Path, maps: Mapping[str, Any], splits: Mapping[str, Sequence[str]] | None = None) -> Path:
    for name, numbers in maps.items():
        save_image(folder / "JPEGImages" / f"{name}.jpg", np.shape(numbers))
        save_numbers(folder / "SegmentationClass" / f"{name}.png", numbers, palette=True)
    for split, names in (splits or {}).items():
        path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    return folder


def write_cityscapes(folder: Path, maps: Mapping[str, Any]) -> Path:
    """``maps``: by ``train/aachen/aachen_000000_000019`` and the like the ids of an image."""
    for name, numbers in maps.items():
        save_image(folder / "leftImg8bit" / f"{name}_leftImg8bit.png", np.shape(numbers))
        for kind in ("labelIds", "instanceIds"):
            save_numbers(folder / "gtFine" / f"{name}_gtFine_{kind}.png", numbers)
        save_json(folder / "gtFine" / f"{name}_gtFine_polygons.json", {"objects": []})
    return folder


def write_textures(folder: Path, joint: Mapping[str, Sequence[str]], lists: Mapping[str, Sequence[str]]) -> Path:
    """``joint``: by ``banded/banded_0002.jpg`` the textures of each image; ``lists``: by ``train1`` its images."""
    for name in joint:
        save_image(folder / "images" / name)
    labels = folder / "labels"
    labels.mkdir()
    text = "".join(f"{name} {' '.join(textures)} \n" for name, textures in joint.items())
    (labels / "labels_joint_anno.txt").write_text(text)
    for name, images in lists.items():
        (labels / f"{name}.txt").write_text("".join(f"{image}\n" for image in images))
    return folder


def write_saved(folder: Path, features: Mapping[str, Any], rows: Mapping[str, Sequence[Any]], shards: int = 1) -> Path:
    """A data set as ``save_to_disk`` of the library ``datasets`` leaves it; images are given as the bytes of files."""
    import pyarrow as pa

    def column(name: str, values: Sequence[Any]) -> Any:
        if features[name]["_type"] != "Image":
            return pa.array(values)
        cells = [None if value is None else {"bytes": value, "path": None} for value in values]
        return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))

    table = pa.table({name: column(name, values) for name, values in rows.items()})
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    size = -(-table.num_rows // shards)
    for i, file in enumerate(files):
        with pa.OSFile(str(folder / file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(i * size, size), max_chunksize=2)
    save_json(folder / "dataset_info.json", {"citation": "", "features": dict(features)})
    save_json(folder / "state.json", {"_data_files": [{"filename": file} for file in files], "_split": None})
    return folder


def png(pixels: Any) -> bytes:
    """The bytes of a PNG of these pixels."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return file.getvalue()
