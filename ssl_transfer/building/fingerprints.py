"""What a recipe names but does not hold, its training images and its teacher's file, known again by their content."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ssl_transfer import config
from ssl_transfer.building.data import OpenSplits
from ssl_transfer.errors import UserError


def check_inputs(
    recipe: config.Recipe, folder: Path, known: Mapping[str, str] | None, splits: OpenSplits
) -> dict[str, str]:
    """A fingerprint of each, which must be the one that is ``known`` of ``folder``, if one is.

    What is not to be found has none: a finished run can do without.

    Raises:
        UserError: ``folder`` was made from others.
    """
    known = known or {}
    fingerprints = {"training images": _images(recipe, splits), "teacher weights": _teacher(recipe)}
    found = {what: fingerprint for what, fingerprint in fingerprints.items() if fingerprint is not None}
    for what, fingerprint in found.items():
        if known.get(what, fingerprint) != fingerprint:
            raise UserError(
                f"{folder} was made from other {what} than the recipe now finds: bring those back, "
                "or choose another name=..."
            )
    return {**known, **found}


def _images(recipe: config.Recipe, splits: OpenSplits) -> str | None:
    """Of the files' names and sizes and the labels: the same for images that are held and that are streamed."""
    if recipe.data.image_size is None:  # published as arrays, whose files are checked whenever they are read
        return None
    try:
        return splits.listed(recipe, "training").fingerprint
    except (OSError, ValueError):
        return None


def _teacher(recipe: config.Recipe) -> str | None:
    """Of the content of the teacher's file, or of the files in its folder that make the model."""
    teacher = recipe.teacher
    if teacher is None or teacher.path is None:
        return None
    in_folder = [teacher.path / name for name in ("config.json", "model.safetensors", "head/model.safetensors")]
    digest = hashlib.sha256()
    for path in [teacher.path] if teacher.file else in_folder:
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
