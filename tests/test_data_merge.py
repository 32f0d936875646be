"""Data sets joined under one concept table: nothing that was labelled is lost, and no photograph is encoded again."""

from __future__ import annotations

from pathlib import Path

import cli
import numpy as np
import pytest
from broden_factory import Concept, Picture, edit_csv, save_png, write_broden
from formats_factory import write_instances
from mask_factory import halves, write_folder
from PIL import Image

from ndissect.engine.data.broden import Broden
from ndissect.engine.data.check import check_dataset
from ndissect.engine.data.concept_images import held_concepts
from ndissect.engine.data.concept_names import normal_name
from ndissect.engine.data.dataset import ConceptDataset
from ndissect.engine.data.formats import key_for, open_folder
from ndissect.engine.data.merge import LABELS, plan_merge, write_merged
from ndissect.engine.data.synonyms import Synonyms, read_synonyms
from ndissect.store.errors import NDError, WrongUse

NONE = Synonyms({})


def area(rows: slice, number: int, size: int = 16) -> np.ndarray:
    numbers = np.zeros((size, size), np.uint16)
    numbers[rows] = number
    return numbers


@pytest.fixture
def first(tmp_path: Path) -> Path:
    pictures = [
        # two maps of one category that overlap in part
        Picture(
            {"object": [area(slice(8), 3), area(slice(6, 10), 4)]}, {"scene": [7]}, name="s/one.png", split="train"
        ),
        Picture({"object": area(slice(4), 3), "color": area(slice(16), 9)}, name="s/two.png", split="val"),
    ]
    concepts = [
        Concept(3, "tree"),
        Concept(4, "Couch"),
        Concept(7, "street-s", "scene"),
        Concept(9, "red-c", "color"),
    ]
    return write_broden(tmp_path / "first", pictures, concepts)


@pytest.fixture
def second(tmp_path: Path) -> Path:
    pictures = [
        Picture(
            {"object": [area(slice(2), 1), area(slice(2, 4), 2), area(slice(4, 6), 5)]}, name="t/three.png", split="val"
        ),
        Picture({}, {"scene": [8], "material": [30]}, name="t/four.png", split="train"),
    ]
    concepts = [
        Concept(1, "sofa"),
        Concept(2, "TREE"),
        Concept(5, "dog"),
        Concept(8, "street-s", "scene"),
        Concept(30, "red", "material"),
    ]
    return write_broden(tmp_path / "second", pictures, concepts, image_size=(24, 40))


def opened(*folders: Path) -> list[Broden]:
    return [open_folder(folder) for folder in folders]  # type: ignore[misc]


def labels(dataset: ConceptDataset, index: int) -> dict[tuple[str, str], np.ndarray]:
    concepts = dataset.concepts
    held = held_concepts(dataset, dataset.read_labels(index))
    return {(concepts.label(h.row).casefold(), concepts.category_of(h.row)): h.mask for h in held}


def test_every_label_of_every_image_is_where_it_was(first: Path, second: Path, tmp_path: Path) -> None:
    members = opened(first, second)
    assert write_merged(plan_merge(members, NONE), tmp_path / "out") == (4, 0)
    joined = open_folder(tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    assert joined.notes == ()
    assert joined.names == ("s/one.png", "s/two.png", "t/three.png", "t/four.png")
    assert joined.splits == ("train", "val", "val", "train")
    assert joined.image_sizes.tolist() == [[32, 32], [32, 32], [24, 40], [24, 40]]
    at = 0
    for member in members:
        for index in range(len(member)):
            before, after = labels(member, index), labels(joined, at)
            assert before.keys() == after.keys()
            assert all((before[concept] == after[concept]).all() for concept in before)
            assert (member.read(index).image == joined.read(at).image).all()
            assert (tmp_path / "out/images" / joined.names[at]).samefile(member.image_path(index))
            at += 1


def test_concepts_of_one_name_and_category_are_one(first: Path, second: Path, tmp_path: Path) -> None:
    plan = plan_merge(opened(first, second), NONE)
    names = [(c.name, c.category, sorted(c.members)) for c in plan.concepts]
    assert names == [
        ("tree", "object", [0, 1]),
        ("Couch", "object", [0]),
        ("street-s", "scene", [0, 1]),
        ("red-c", "color", [0]),
        ("sofa", "object", [1]),
        ("dog", "object", [1]),
        ("red", "material", [1]),
    ]
    assert (plan.shared, plan.joined) == ([plan.concepts[0], plan.concepts[2]], [])
    assert plan.several == {"red": ["color", "material"]}
    write_merged(plan, tmp_path / "out")
    joined = opened(tmp_path / "out")[0]
    row = joined.concepts.name.index("tree")
    assert joined.frequency[row] == 3
    assert joined.coverage[row] == pytest.approx(0.5 + 0.25 + 0.125)
    assert joined.category_coverage["scene"] == 2


def test_synonyms_join_what_is_called_otherwise(first: Path, second: Path, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("# furniture\nsofa = couch\nDog=tree\nred (material) = red (color)\ncat = lion\n")
    plan = plan_merge(opened(first, second), read_synonyms(tmp_path / "s.txt"))
    assert [(c.name, c.category) for c in plan.concepts] == [
        ("tree", "object"),
        ("Couch", "object"),
        ("street-s", "scene"),
        ("red-c", "color"),
    ]
    assert plan.joined == [plan.concepts[0]]  # tree and dog of the second
    assert plan.unused == ("cat",)
    write_merged(plan, tmp_path / "out")
    joined = open_folder(tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    shown = labels(joined, 2)
    assert shown["tree", "object"].sum() == 4 * 16
    assert shown["couch", "object"].sum() == 2 * 16
    assert labels(joined, 3)["red", "color"].all()


def test_a_concept_that_several_maps_name_is_kept_as_often(first: Path, second: Path, tmp_path: Path) -> None:
    """The protocol of 2017 counts a pixel once for every map that names its concept."""
    (tmp_path / "s.txt").write_text("couch = tree\n")
    write_merged(plan_merge(opened(first, second), read_synonyms(tmp_path / "s.txt")), tmp_path / "out")
    maps = open_folder(tmp_path / "out").read_labels(0).maps
    assert len(maps) == 2
    assert (maps == 1).sum() == 8 * 16 + 4 * 16
    assert len(open_folder(tmp_path / "out").read_labels(2).maps) == 1  # three that do not overlap


def test_grids_of_two_sizes_become_the_finer_one(first: Path, tmp_path: Path) -> None:
    fine = write_broden(
        tmp_path / "fine",
        [Picture({"object": area(slice(8), 1, 32)}, name="u/a.png")],
        [Concept(1, "tree")],
        grid=(32, 32),
    )
    write_merged(plan_merge(opened(first, fine), NONE), tmp_path / "out")
    joined = open_folder(tmp_path / "out")
    assert joined.grid == (32, 32)
    assert labels(joined, 0)["tree", "object"].mean() == 0.5
    assert labels(joined, 2)["tree", "object"].mean() == 0.25


def test_images_of_one_name_are_told_apart(first: Path, tmp_path: Path) -> None:
    copy = write_broden(
        tmp_path / "x/first", [Picture({"object": area(slice(8), 1)}, name="S/one.png")], [Concept(1, "a")]
    )
    plan = plan_merge(opened(first, copy), NONE)
    assert plan.names == (("s/one.png", "s/two.png"), ("first_2/S/one.png",))
    assert plan.renamed == ("first_2",)
    odd = write_broden(
        tmp_path / "odd", [Picture({"object": area(slice(8), 1)}, name=f"{LABELS}/a.png")], [Concept(1, "a")]
    )
    assert plan_merge(opened(first, odd), NONE).names[1] == ("odd/000000.png",)


def test_nothing_is_left_where_an_image_cannot_be_read(first: Path, second: Path, tmp_path: Path) -> None:
    (second / "images/t/three_object_1.png").write_bytes(b"no picture")
    before = cli.files_in(tmp_path)
    with pytest.raises(NDError, match=r"three_object_1\.png"):
        write_merged(plan_merge(opened(first, second), NONE), tmp_path / "out")
    assert cli.files_in(tmp_path) == before
    with pytest.raises(WrongUse, match="exists"):
        write_merged(plan_merge(opened(first), NONE), second)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sofa = couch\ncouch = sofa\n", "each other's synonyms"),
        ("sofa = couch\nsofa = bench\n", "sofa is both couch and bench"),
        ("sofa = \n", "is no pair of names"),
        ("a = b\nno pair\n", "is no pair of names"),
        ("name,other\nsofa,couch\n", "no column canonical"),
        ("sofa\n", "no column name, canonical"),
    ],
)
def test_faulty_synonyms_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.txt").write_text(text)
    with pytest.raises(WrongUse) as caught:
        read_synonyms(tmp_path / "s.txt")
    assert said in caught.value.message


def test_synonyms_as_a_table_and_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("canonical,name\ncouch,sofa\nseat,couch\ntree,Tree\n")
    known = read_synonyms(tmp_path / "s.csv")
    assert known.of("Sofa", "object") == ("seat", "object")
    assert known.of("tree", "object") == ("tree", "object")
    with pytest.raises(WrongUse, match="missing"):
        read_synonyms(tmp_path / "gone.csv")


def test_the_command_tells_what_was_joined(first: Path, second: Path, tmp_path: Path) -> None:
    edit_csv(second / "index.csv", 0, "split", "test")
    (tmp_path / "s.txt").write_text("sofa = couch\n")
    done = cli.nd("data", "merge", "first", "second", "-o", "out", "--synonyms", "s.txt", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "out\n")
    for line in (
        "note: second: index.csv: split 'test' (1 image) counts as val",
        "first: 2 images, 4 concepts",
        "together: 4 images, 6 concepts in 4 categories, 3 of them in several data sets (tree, Couch, street-s)",
        "photographs: 4 linked, 0 copied",
    ):
        assert line in done.stderr.splitlines()
    assert "red (color, material)" in done.stderr
    cli.failed(cli.nd("data", "merge", "first", "second", "-o", "out", folder=tmp_path), 2, "out exists", "-o")
    cli.failed(cli.nd("data", "merge", "first", "first", "-o", "o", folder=tmp_path), 2, "named twice")
    cli.failed(cli.nd("data", "merge", "first", "-o", "o", folder=tmp_path), 2, "nothing to join")


def test_a_folder_of_two_formats_is_joined_as_the_one_that_is_named(first: Path, second: Path, tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (second / part).mkdir(exist_ok=True)
    save_png(second / "images" / "a.png", area(slice(4), 1))
    save_png(second / "masks" / "a.png", area(slice(4), 1))
    cli.failed(cli.nd("data", "merge", "first", "second", "-o", "out", folder=tmp_path), 2, "2 formats", "--format")
    assert [key_for(folder, "folder") for folder in (first, second)] == [None, "folder"]
    with pytest.raises(WrongUse, match="no format fold"):
        key_for(first, "fold")
    done = cli.nd("data", "merge", "first", "second", "-o", "out", "--format", "broden", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr


def normal(held: dict[tuple[str, str], np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    return {(normal_name(name), category): mask for (name, category), mask in held.items()}


def test_sets_of_any_formats_are_joined(first: Path, tmp_path: Path) -> None:
    """Masks of several sizes, and instances that a JSON file draws, beside Broden's; photographs stay as they are."""
    own = write_folder(
        tmp_path / "own", {"a": {"": halves(1, 2)}, "b": {"": halves(2, 0, (9, 30))}}, "1,dog\n2,t-shirt\n"
    )
    Image.new("RGB", (60, 18)).save(own / "images" / "b.jpg")
    coco = write_instances(
        tmp_path / "coco",
        {"a.jpg": [(1, [[0, 0, 20, 0, 20, 10]]), (2, [[0, 0, 20, 0, 20, 10]])]},
        categories=[{"id": 1, "name": "Dog"}, {"id": 2, "name": "T shirt"}],
    )
    sets = [open_folder(folder) for folder in (first, own, coco)]
    before = {path: path.read_bytes() for folder in (own, coco) for path in folder.rglob("*.jpg")}
    plan = plan_merge(sets, NONE)
    assert [concept.name for concept in plan.shared] == ["dog", "t-shirt"]
    write_merged(plan, tmp_path / "out")
    joined = open_folder(tmp_path / "out")
    assert check_dataset(tmp_path / "out") == []
    assert len(joined) == sum(map(len, sets))
    for dataset in sets:
        for index, name in enumerate(dataset.names):
            at = next(n for n, other in enumerate(joined.names) if other in (name, f"{dataset.name}/{name}"))
            was, now = (normal(labels(*one)) for one in ((dataset, index), (joined, at)))
            assert was.keys() == now.keys()
            if dataset is not sets[0]:  # whose grid is coarser
                assert all((was[concept] == now[concept]).all() for concept in was)
    assert {path: path.read_bytes() for path in before} == before


def test_photographs_are_copied_where_no_link_can_be(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another disk")

    monkeypatch.setattr("os.link", refuse)
    save_png(first / "images/s/two.png", np.full((32, 32, 3), 7, np.uint8))
    assert write_merged(plan_merge(opened(first), NONE), tmp_path / "out") == (0, 2)
    assert (tmp_path / "out/images/s/two.png").read_bytes() == (first / "images/s/two.png").read_bytes()
