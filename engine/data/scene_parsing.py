"""ADE20K SceneParsing-150 (Zhou et al., CVPR 2017), as its archive ADEChallengeData2016 unpacks.

``annotations/`` holds a grey PNG an image: 0 is everything that is none of the 150 objects. ``objectInfo150.txt`` names
them, ``sceneCategories.txt`` says which scene an image shows.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ndissect.engine.data.image_files import IMAGE_ENDINGS, files
from ndissect.engine.data.images import BadFile
from ndissect.engine.data.in_place import (
    Contents,
    concept_table,
    first_names,
    opened,
    paired,
    read_text,
    refuse,
    scene_numbers,
    split_in,
)
from ndissect.engine.data.index_table import split_by_name
from ndissect.engine.data.label_maps import MapFile, MapValues, map_values
from ndissect.engine.data.labelled_files import ImageRecord, LabelledFiles
from ndissect.engine.data.tables import Report

#: The table of names in the archive; the authors' repository has the same as CSV.
_NAMES = ("objectInfo150.txt", "object150_info.csv", "objectInfo150.csv")
_SCENES = "sceneCategories.txt"
_PARTS = (("training", "train"), ("validation", "val"))
#: In the authors' development kit a few images lie here, without the two folders of the parts.
_SAMPLE = "sampleData"


def owns(folder: Path) -> bool:
    """Whether ``folder`` holds SceneParsing-150: its table of names, or annotations in its two parts."""
    by_name = any((folder / name).is_file() for name in _NAMES)
    parts = all((folder / "annotations" / part).is_dir() for part, _ in _PARTS)
    return (by_name or parts) and any((folder / at / "annotations").is_dir() for at in ("", _SAMPLE))


def open_scene_parsing(root: Path, report: Report | None = None, max_pixels: int | None = None) -> LabelledFiles:
    """The data set in ``root``; ``report`` receives every fault of its tables, without it the first is raised."""
    return opened(root, read_contents(root, report or refuse), report, max_pixels)


def read_contents(root: Path, say: Report) -> Contents:
    """The objects and scenes of ``root``, and its images that have a label map."""
    names, table = _read_names(root, say)
    scene_of, scenes_table = _read_scenes(root, say)
    values = map_values(next((n for n in _NAMES if (root / n).is_file()), _NAMES[0]), {n: n for n in names}, void=(0,))
    base = "" if (root / "annotations").is_dir() else f"{_SAMPLE}/"
    parts = [(part, split) for part, split in _PARTS if (root / base / "annotations" / part).is_dir()] or [("", "")]
    left_out: list[BadFile] = []
    images = [image for part, split in parts for image in _images(root, base, part, split, values, left_out)]
    if not images:
        for fault in left_out:
            say(fault)
        left_out = []
    numbers = scene_numbers((scene_of.get(PurePosixPath(r.name).stem, "") for r in images), max(names, default=0))
    records = tuple(_with_scene(record, scene_of, numbers) for record in images)
    concepts = {n: (name, "object") for n, name in names.items()}
    concepts |= {number: (f"{scene}-s", "scene") for scene, number in numbers.items()}
    return Contents(concept_table(concepts), records, (table, scenes_table), tuple(left_out))


def _images(
    root: Path,
    base: str,
    part: str,
    split: str,
    values: MapValues,
    left_out: list[BadFile],
) -> list[ImageRecord]:
    """The images of one part, without their scenes."""
    at = tuple(str(PurePosixPath(base, kind, part)) for kind in ("images", "annotations"))
    images, maps = files(root / at[0], IMAGE_ENDINGS), files(root / at[1], (".png",))
    records = []
    for image, label_map in paired(images, maps, (at[0], at[1]), left_out.append, left_out):
        source = MapFile(Path(at[1], label_map), values)
        name = str(PurePosixPath(part, image))
        image_split = split or split_in(image) or split_by_name(name)
        records.append(ImageRecord(name, Path(at[0], image), image_split, (source,)))
    return records


def _with_scene(record: ImageRecord, scene_of: dict[str, str], numbers: dict[str, int]) -> ImageRecord:
    number = numbers.get(scene_of.get(PurePosixPath(record.name).stem, ""))
    labels = () if number is None else (number,)
    return ImageRecord(record.name, record.file, record.split, record.sources, labels)


def _read_names(root: Path, say: Report) -> tuple[dict[int, str], bytes]:
    """The first name of each number, and the bytes of the table."""
    file = next((name for name in _NAMES if (root / name).is_file()), None)
    if file is None:
        what = f"the file is missing: it names the 150 objects, as one of {', '.join(_NAMES)}"
        say(BadFile(_NAMES[0], what, "It is in ADEChallengeData2016.zip, beside images/ and annotations/"))
        return {}, b""
    text, data = read_text(root, file, say)
    # As text: "2  0.1072  6046  612  building, edifice", with tabs; as CSV with one more column, and ; between names.
    mark, separator = (",", ";") if file.endswith(".csv") else ("\t", ",")
    header, *rows = [line for line in text.splitlines() if line.strip()] or [""]
    columns = [cell.strip() for cell in header.split(mark)]
    if "Idx" not in columns or columns[-1] != "Name":
        say(BadFile(file, f"row 1: the header is {header.strip()[:80]!r}, it must begin with Idx and end with Name"))
        return {}, data
    names: dict[int, str] = {}
    for row, line in enumerate(rows, 2):
        cells = [cell.strip().strip('"') for cell in line.split(mark, len(columns) - 1)]
        number = int(cells[0]) if cells[0].isascii() and cells[0].isdigit() and len(cells[0]) < 6 else 0
        if len(cells) != len(columns) or not 0 < number < 2**16 or number in names:
            say(BadFile(file, f"row {row}: {line.strip()[:80]!r} is no number of its own with a name"))
        else:
            names[number] = cells[-1]
    return first_names(names, separator), data


def _read_scenes(root: Path, say: Report) -> tuple[dict[str, str], bytes]:
    """The scene of each image, by the stem of its file; none where there is no such table."""
    if not (root / _SCENES).exists():
        return {}, b""
    text, data = read_text(root, _SCENES, say)
    return {cells[0]: cells[1] for line in text.splitlines() if len(cells := line.split(maxsplit=1)) == 2}, data
