"""The recipe's images, what is seen of them in scoring, and the batches that training draws from them."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Literal

import torch

from ssl_transfer import config
from ssl_transfer.context import Context, cores_of_process
from ssl_transfer.data import Augment, Batches, Images, load_images
from ssl_transfer.data.subset import held_out_images, learned_images
from ssl_transfer.distributed import Machine
from ssl_transfer.processes import refuse_other_images

# What decides which images are read, and how; root, split and size apart these are choices of the reader.
_READ_BY = {"dataset", "root", "image_size", "on_error", "resident", "train_classes", "labels", "image"}

# What is trained on, what probes learn from, and what is scored.
Part = Literal["training", "train", "test"]


class ListedSplits:
    """The splits that were listed, each once, whichever recipe asks for it."""

    def __init__(self) -> None:
        self._listed: dict[str, Images] = {}

    def listed(self, recipe: config.Recipe, part: Part) -> Images:
        """The images of a part to ask for their number and labels: those of files are neither decoded nor checked."""
        key = _key(recipe, part)
        if key not in self._listed:
            self._listed[key] = _load(recipe, part, decode=False)
        return _seen(recipe.data, part, self._listed[key])


class OpenSplits(ListedSplits):
    """The splits that a run has opened: each is read once and put on the device once, whoever asks for it.

    Recipes that name the same data set in the same way, such as a student and its teacher, share it. A recipe that is
    about to train lets go of what it does not use itself (:meth:`keep_only`).
    """

    def __init__(self, context: Context):
        super().__init__()
        self._context = context
        self._opened: dict[str, Images] = {}

    def listed(self, recipe: config.Recipe, part: Part) -> Images:
        """As without a run; what is open need not be listed."""
        key = _key(recipe, part)
        if key in self._opened:
            self._listed.setdefault(key, self._opened[key])
        return super().listed(recipe, part)

    def opened(self, recipe: config.Recipe, part: Part) -> Images:
        """The images of a part, on the device; one process of each machine downloads, reads and decodes them.

        Raises:
            UserError: a machine cannot read them, or they are others than those of the first machine.
        """
        return _seen(recipe.data, part, self._whole(recipe, part))

    def scored(self, recipe: config.Recipe, part: Part) -> Images:
        """What a model sees of a part when it is scored, on the device."""
        return scored_part(recipe, self.opened(recipe, part))

    def opened_training(self, recipe: config.Recipe) -> tuple[Images, Images]:
        """The images that are trained on, and those that a monitor looks at: held out of them, or the same."""
        trained_on, held_out = self.opened(recipe, "training"), recipe.data.held_out
        if held_out is None:
            return trained_on, trained_on
        return trained_on, held_out_images(self._whole(recipe, "training"), held_out)

    def class_names(self, recipe: config.Recipe) -> tuple[str, ...] | None:
        """The names of the classes that are trained on, by their numbers, as the main process finds them."""
        return self._context.on_main_process(lambda: self.listed(recipe, "training").class_names)

    def keep_only(self, recipe: config.Recipe) -> None:
        """Let go of all splits but those that ``recipe`` names."""
        parts: tuple[Part, ...] = ("training", "train", "test")
        own = {_key(recipe, part) for part in parts}
        for kept in (self._listed, self._opened):
            for key in kept.keys() - own:
                del kept[key]

    def _whole(self, recipe: config.Recipe, part: Part) -> Images:
        key = _key(recipe, part)
        if key not in self._opened:
            images = _share(self._context.once_a_machine(lambda: _load(recipe, part)), self._context.machine)
            if self._context.machine.count > 1:
                first = self._context.machine.first
                what = f"the split {recipe.data.splits[part]} of {recipe.data.dataset}"
                refuse_other_images(what, len(images), images.fingerprint if first else None)
            self._opened[key] = images.to(self._context.device)
        return self._opened[key]


def _share(images: Images | None, machine: Machine) -> Images:
    """What the first process of a machine has read, on all of its processes."""
    if machine.alone:
        assert images is not None
        return images
    pixels = None if images is None else images.pixels
    shape = machine.share(tuple(pixels.shape) if isinstance(pixels, torch.Tensor) else None)
    if shape is None:  # pixels that stay on disk: a list of them
        return machine.share(images)
    rest = {} if images is None else {field.name: getattr(images, field.name) for field in fields(images)}
    rest = machine.share({name: value for name, value in rest.items() if name != "pixels"})
    held = pixels.contiguous() if isinstance(pixels, torch.Tensor) else torch.empty(shape, dtype=torch.uint8)
    machine.share_tensor(held)
    return Images(held, **rest)


def list_images(recipe: config.Recipe, part: Part) -> Images:
    """The images of a part without a run around them, to ask for their number and labels: none is decoded."""
    return _seen(recipe.data, part, _load(recipe, part, decode=False))


def read_images(recipe: config.Recipe, part: Part) -> Images:
    """The images of a part without a run around them."""
    return _seen(recipe.data, part, _load(recipe, part))


def _key(recipe: config.Recipe, part: Part) -> str:
    """All that decides what is read for a part."""
    data = recipe.data
    how = data.model_dump_json(include=_READ_BY)
    return f"{how} {data.splits[part]}"


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
        data.root,
        split=data.splits[part],
        download=data.download and not data.is_of_files,  # archives of gigabytes are fetched where they are asked for
        image_size=data.image_size,
        on_error=data.on_error,
        unchecked=bool(data.unchecked),
        resident=data.resident,
        workers=cores_of_process() if data.workers is None else data.workers,
        memory=Path(recipe.train.runs) / "checked-images",
        train_classes=data.train_classes,
        labels=data.labels or "auto",
        image=data.image,
        decode=decode,
    )


def list_class_names(recipe: config.Recipe) -> tuple[str, ...] | None:
    """The names of the classes that are trained on, by their numbers, without a run around them."""
    return list_images(recipe, "training").class_names


def scored_splits(
    recipe: config.Recipe,
    get: Callable[[config.Recipe, Part], Images],
    trained_classes: Callable[[config.Recipe], tuple[str, ...] | None] = list_class_names,
) -> tuple[Images, Images]:
    """What probes learn from and what is scored, as ``get`` gives a recipe's parts, with the same numbers for classes.

    A model's own classifier has the numbers of the images that it was trained on, so they have those.
    """
    train, test = get(recipe, "train"), get(recipe, "test")
    splits = recipe.data.splits
    if recipe.classifies and train.class_names is not None and splits["training"] != splits["train"]:
        train = train.numbered_like(trained_classes(recipe))
    return train, test.numbered_like(train.class_names)


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
