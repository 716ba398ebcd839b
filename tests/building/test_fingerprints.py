"""What a run was made from is recognized by its content, and a run is not continued from anything else."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from ssl_transfer import config, runs
from ssl_transfer.building import fingerprints
from ssl_transfer.building.data import OpenSplits, list_images
from ssl_transfer.building.fingerprints import check_inputs
from ssl_transfer.context import Context
from ssl_transfer.errors import UserError

RECIPE = """
name: student
seed: 0
data: {{dataset: folder, root: {root}/photos, image_size: 8, batch_size: 4, augment: digits}}
model: {{backbone: tiny_convnet}}
task: {{kind: simclr, projection_dim: 8}}
optim: {{name: adamw, lr: 1.0e-3}}
train: {{epochs: 1, precision: full, cpu_threads: 1, runs: {root}/runs}}
score: []
"""
IMAGES, TEACHER = "training image contents", "teacher weights"
NO_FILES = "data={dataset: digits, batch_size: 4, augment: digits}"


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        path = tmp_path / "photos" / "train" / "ash" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(path)
    for name in ("recipe", "teacher"):
        (tmp_path / f"{name}.yaml").write_text(RECIPE.format(root=tmp_path).replace("student", name))
    return tmp_path


def found(folder: Path, *overrides: str, known: Mapping[str, str] | None = None) -> dict[str, str]:
    recipe = config.load(folder / "recipe.yaml", overrides)
    return check_inputs(recipe, folder / "runs" / "student", known, OpenSplits(Context.start(recipe)))


def of(*contents: bytes) -> str:
    """The fingerprint of files, written out again: by another one every older run would be refused."""
    return sha256(b"".join(sha256(content).digest() for content in contents)).hexdigest()[:16]


def test_images_in_files_have_a_fingerprint_and_those_published_as_arrays_have_none(folder):
    given = config.load(folder / "recipe.yaml")
    known = found(folder)
    assert known == {IMAGES: list_images(given, "training").fingerprint}
    assert found(folder, known={"of later versions": "x"}) == {"of later versions": "x"} | known
    assert found(folder, NO_FILES) == {}
    Image.new("RGB", (9, 9), (77, 0, 0)).save(folder / "photos" / "train" / "ash" / "2.png")
    place = folder / "runs" / "student"
    with pytest.raises(
        UserError, match=f"{place} was made from other {IMAGES} than .*: bring those back, or choose an"
    ):
        found(folder, known=known)


def test_what_cannot_be_found_is_not_compared(folder):
    known = {IMAGES: "some", TEACHER: "thing"}
    teacher = f"task={{kind: rkd, teacher: {{checkpoint: {folder}/gone}}}}"
    assert found(folder, f"data.root={folder}/gone", teacher, known=known) == known


@pytest.mark.parametrize("source", ["checkpoint", "file"])
def test_a_teacher_is_known_by_the_content_of_its_files(folder, source):
    names = ["config.json", "model.safetensors", "head/model.safetensors"] if source == "checkpoint" else ["t.pth"]
    (folder / "taught" / "head").mkdir(parents=True)
    given = "taught" if source == "checkpoint" else "taught/t.pth, backbone: resnet18"
    task = f"task={{kind: rkd, teacher: {{{source}: {folder}/{given}}}}}"
    contents: list[bytes] = []
    known: dict[str, str] = {}
    for name in names:
        if known:
            (folder / "taught" / "other.txt").write_text("of no account")
            assert found(folder, NO_FILES, task, known=known) == known
        contents.append(name.encode())
        (folder / "taught" / name).write_bytes(contents[-1])
        known = found(folder, NO_FILES, task)
        assert known == ({} if name == "config.json" else {TEACHER: of(*contents)})  # without weights it is no teacher
    (folder / "taught" / names[-1]).write_bytes(b"trained anew")
    with pytest.raises(UserError, match=f"was made from other {TEACHER} than the recipe now finds"):
        found(folder, NO_FILES, task, known=known)


def test_a_teacher_that_is_a_recipe_is_known_when_it_is_trained(folder):
    task = "task={kind: rkd, teacher: {recipe: teacher.yaml}}"
    teacher = config.load(folder / "recipe.yaml", [task]).task.teacher.recipe
    place, _ = runs.claim(teacher)
    (place / "config.json").write_bytes(b"network")
    (place / "model.safetensors").write_bytes(b"weights")
    info = runs.RunInfo(config.identity_hash(teacher), steps=1, total_steps=2)
    runs.write_info(place, info)
    assert found(folder, NO_FILES, task) == {}
    runs.write_info(place, runs.RunInfo(info.identity, steps=2, total_steps=2, finished=True))
    assert found(folder, NO_FILES, task) == {TEACHER: of(b"network", b"weights")}


def test_each_of_several_teachers_has_a_fingerprint_of_its_own(folder):
    for name in ("first", "second"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_bytes(b"config")
        (folder / name / "model.safetensors").write_bytes(name.encode())
    task = f"task={{kind: rkd, teacher: [{{checkpoint: {folder}/first}}, {{checkpoint: {folder}/second}}]}}"
    known = found(folder, NO_FILES, task)
    assert known == {
        f"teacher {number} weights": of(b"config", name) for number, name in ((1, b"first"), (2, b"second"))
    }
    (folder / "second" / "model.safetensors").write_bytes(b"trained anew")
    with pytest.raises(UserError, match="was made from other teacher 2 weights than the recipe now finds"):
        found(folder, NO_FILES, task, known=known)


def test_a_published_teacher_is_known_by_its_name(folder):
    assert found(folder, NO_FILES, "task={kind: rkd, teacher: {timm: resnet18}}") == {}


def test_a_run_that_began_in_another_order_of_its_images_is_not_continued(folder, monkeypatch):
    given = config.load(folder / "recipe.yaml")

    def checked(known, *, begun):
        return check_inputs(given, folder, known, OpenSplits(Context.start(given)), begun=begun)

    began = checked({}, begun=False)
    assert checked(began, begun=True) == began and began.keys() == {IMAGES}  # few images are sorted, as ever
    monkeypatch.setattr(fingerprints, "SORTED", 3)
    order = {"order of the training images": "computed by place"}
    with pytest.raises(UserError, match="was begun by version 0.1.0, which puts more than 3 images in another order"):
        checked(began, begun=True)
    assert checked(began, begun=False) == began | order  # new, or trained to its end
    assert checked(began | order, begun=True) == began | order
