"""The recipe's images, what is seen of them in scoring, and the batches that training draws from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ssl_transfer import config
from ssl_transfer.context import Context, cores_of_process
from ssl_transfer.data import Augment, Batches, Images, load_images
from ssl_transfer.data.subset import held_out_images, learned_images

# What is trained on, what probes learn from, and what is scored.
Part = Literal["training", "train", "test"]


def open_images(recipe: config.Recipe, part: Part, context: Context) -> Images:
    """The images that are trained on, or whose labels probes learn from, or that are scored; on the device."""
    images = context.main_first(lambda: read_images(recipe, part))  # one process downloads, the others find the files
    return images.to(context.device)


def open_training(recipe: config.Recipe, context: Context) -> tuple[Images, Images]:
    """The images that are trained on, and those that a monitor looks at: held out of them, or the same."""
    data = recipe.data
    whole = context.main_first(lambda: _load(recipe, "training"))
    trained_on = _seen(data, "training", whole).to(context.device)
    return trained_on, trained_on if data.held_out is None else held_out_images(whole, data.held_out).to(context.device)


def list_images(recipe: config.Recipe, part: Part) -> Images:
    """The same images to ask for their number and labels: those of files are neither decoded nor checked."""
    return _seen(recipe.data, part, _load(recipe, part, decode=False))


def read_images(recipe: config.Recipe, part: Part) -> Images:
    """The same images without a run around them."""
    return _seen(recipe.data, part, _load(recipe, part))


def _seen(data: config.Data, part: Part, split: Images) -> Images:
    """Those images of a whole split that are the part."""
    if data.sees_all(part):
        return split
    held_out = data.held_out or 0
    return held_out_images(split, held_out) if part == "test" else learned_images(split, data.images, held_out)


def _load(recipe: config.Recipe, part: Part, *, decode: bool = True) -> Images:
    data = recipe.data
    return load_images(
        data.dataset,
        Path(data.root),
        split=data.splits[part],
        download=data.download,
        image_size=data.image_size,
        on_error=data.on_error,
        resident=data.resident,
        workers=cores_of_process() if data.workers is None else data.workers,
        memory=Path(recipe.train.runs) / "checked-images",
        train_classes=data.train_classes,
        decode=decode,
    )


def scored_splits(recipe: config.Recipe, open_part: Callable[[Part], Images]) -> tuple[Images, Images]:
    """What probes learn from and what is scored, as ``open_part`` gives them, with the same numbers for classes.

    A model's own classifier has the numbers of the images that it was trained on, so they have those.
    """
    train, test = open_part("train"), open_part("test")
    splits = recipe.data.splits
    if recipe.classifies and train.class_names is not None and splits["training"] != splits["train"]:
        train = train.numbered_like(list_images(recipe, "training"))
    return train, test.numbered_like(train)


def scored_part(recipe: config.Recipe, images: Images) -> Images:
    """What a model sees of ``images`` when it is scored: their middle, as large as the views that it is trained on."""
    return images if recipe.data.crop_size is None else images.middle(recipe.data.crop_size)


def build_batches(recipe: config.Recipe, images: Images, context: Context) -> Batches:
    """This process's part of every batch of views of ``images``."""
    data = recipe.data
    size = data.crop_size or images.pixels.shape[-1]
    return Batches(
        images,
        [Augment(size, **view, compiled=recipe.train.compile) for view in data.augment.views(data.views)],
        seed=recipe.seed,
        batch_size=data.batch_size,
        per_class=data.per_class,
        fixed_views=data.fixed_views,
        rank=context.accelerator.process_index,
        world=context.accelerator.num_processes,
    )
