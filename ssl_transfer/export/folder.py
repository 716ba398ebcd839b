"""From a finished run to a whole folder: the weights in one of three formats, the recipe and the model card."""

from collections.abc import Callable
from pathlib import Path

from ssl_transfer import config, runs
from ssl_transfer.errors import UserError, machine_limits, user_mistakes
from ssl_transfer.export.artifact import Artifact
from ssl_transfer.export.card import model_card
from ssl_transfer.export.hub import check_name, push
from ssl_transfer.export.programs import write_onnx, write_torch_program
from ssl_transfer.export.timm_folder import write_timm_folder
from ssl_transfer.files import new_folder
from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec, load_model
from ssl_transfer.section import suggest

FORMATS: dict[str, Callable[[Path, EmbeddingModel, ModelSpec], Artifact]] = {
    "timm": write_timm_folder,
    "torch": write_torch_program,
    "onnx": write_onnx,
}


def export_run(
    run: Path,
    to: Path,
    *,
    file_format: str = "timm",
    push_to_hub: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Write the model of the finished ``run`` into the new folder ``to``, and upload that if a name is given.

    The folder is whole or absent: it is made beside its place, every file in it is compared with the run's model, and
    then it is moved. A folder with something in it is never touched.

    Raises:
        UserError: something a person can mend, in one sentence.
    """
    if file_format not in FORMATS:
        raise UserError(f"there is no export format {file_format!r}{suggest(file_format, FORMATS)}")
    recipe, info = runs.read_recipe(run), runs.read_info(run)
    if info is None or not info.finished:
        done = "not started" if info is None else f"at step {info.steps:,} of {info.total_steps:,}"
        raise UserError(f"{run} is not finished ({done}): run its recipe to the end, then export it")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} exists and is not empty: choose another folder with --to, or remove it")
    with machine_limits(), user_mistakes():
        if push_to_hub is not None:
            check_name(push_to_hub)
        model, spec = load_model(run)
        with new_folder(to) as folder:
            artifact = FORMATS[file_format](folder, model, spec)
            (folder / "recipe.yaml").write_text(config.dump(recipe), encoding="utf-8")
            card = model_card(run, recipe, info, model, spec, artifact, location=push_to_hub)
            (folder / "README.md").write_text(card, encoding="utf-8")
        for sentence in (f"{to} holds the model, its recipe and its model card (README.md).", *artifact.notes):
            say(sentence)
        if push_to_hub is not None:
            say(push(to, push_to_hub))
