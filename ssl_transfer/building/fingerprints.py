"""Fingerprints of what a recipe names but does not contain: its training images and its teachers' files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ssl_transfer import config, runs
from ssl_transfer.building.data import OpenSplits
from ssl_transfer.catalog.roles import teacher_word
from ssl_transfer.data.counter import SORTED
from ssl_transfer.errors import UserError

# Not the name of earlier versions, whose fingerprints were of names and sizes and would refuse every older run.
_IMAGES = "training image contents"
_ORDER = "order of the training images"


def check_inputs(
    recipe: config.Recipe, folder: Path, known: Mapping[str, str] | None, splits: OpenSplits, *, begun: bool = False
) -> dict[str, str]:
    """Compare the inputs of the run in ``folder`` with their fingerprints in ``known`` and return them all.

    An input that cannot be found has no fingerprint and is not compared, since a finished run can do without it. The
    way in which the images are put in order is one of them; ``begun`` says that the run has taken steps and not all.

    Raises:
        UserError: the run was made from other training images, or from another teacher file, or has begun in another
            order of its images than they have now.
    """
    known = known or {}
    fingerprints = {
        _IMAGES: _images(recipe, splits),
        **{
            f"{teacher_word(place, len(recipe.teachers))} weights": _teacher(teacher)
            for place, teacher in enumerate(recipe.teachers)
        },
        _ORDER: _order(recipe, splits),
    }
    if begun and fingerprints[_ORDER] is not None and _ORDER not in known:
        raise UserError(
            f"{folder} was begun by version 0.1.0, which puts more than {SORTED:,} images in another order: end it "
            "with that version, or choose another name=..."
        )
    found = {what: fingerprint for what, fingerprint in fingerprints.items() if fingerprint is not None}
    for what, fingerprint in found.items():
        if known.get(what, fingerprint) != fingerprint:
            raise UserError(
                f"{folder} was made from other {what} than the recipe now finds: bring those back, "
                "or choose another name=..."
            )
    return {**known, **found}


def _images(recipe: config.Recipe, splits: OpenSplits) -> str | None:
    """Of the files and labels of a data set of files, the same whether its images are held in memory or streamed."""
    if recipe.data.image_size is None:  # published as arrays, whose files are checked whenever they are read
        return None
    try:
        return splits.listed(recipe, "training").fingerprint
    except (OSError, ValueError):
        return None


def _order(recipe: config.Recipe, splits: OpenSplits) -> str | None:
    """How an epoch's order is made (:mod:`ssl_transfer.data.counter`), where that is not as it always was."""
    if recipe.data.image_size is None or recipe.data.per_class is not None:
        return None
    try:
        return "computed by place" if len(splits.listed(recipe, "training")) > SORTED else None
    except (OSError, ValueError):
        return None


def _teacher(teacher: config.Teacher) -> str | None:
    """Of the content of a teacher's file, or of the files of its folder that its model is loaded from."""
    if teacher.file is not None:
        paths = [Path(teacher.file)]
    elif teacher.folder is not None:
        paths = _weights_in(teacher.folder)
    elif teacher.recipe is not None:
        folder, _ = runs.folder_of(teacher.recipe)
        info = runs.read_info(folder)
        if info is None or not info.finished:  # its weights are not those yet that the student will learn from
            return None
        paths = _weights_in(folder)
    else:  # published under a name, which stands for its weights
        return None
    if not all(path.is_file() for path in paths):  # said where the teacher is loaded, if it is
        return None
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _weights_in(folder: Path) -> list[Path]:
    head = folder / "head" / "model.safetensors"
    return [folder / "config.json", folder / "model.safetensors", *([head] if head.is_file() else [])]
