"""The recipe's images, what is seen of them in scoring, and the batches that training draws from them."""

from pathlib import Path
from typing import Literal

from ssl_transfer import config
from ssl_transfer.context import Context, cores_of_process
from ssl_transfer.data import Augment, Batches, Images, load_images
from ssl_transfer.data.subset import first_images


def open_images(recipe: config.Recipe, part: Literal["training", "train", "test"], context: Context) -> Images:
    """The images that are trained on, or whose labels probes learn from, or that are scored; on the device."""
    data = recipe.data
    train = data.train or "train"
    split = {"training": data.split or train, "train": train, "test": data.test or "test"}[part]
    with context.accelerator.main_process_first():  # one process downloads, the others find the files
        images = load_images(
            data.dataset,
            Path(data.root),
            split=split,
            download=data.download,
            image_size=data.image_size,
            on_error=data.on_error,
            resident=data.resident,
            workers=cores_of_process() if data.workers is None else data.workers,
            memory=Path(recipe.train.runs) / "checked-images",
            train_classes=data.train_classes,
        )
    if data.images is not None and part != "test":
        images = first_images(images, data.images)
    return images.to(context.device)


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
