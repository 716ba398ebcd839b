"""Augmented views as pure functions of (seed, epoch, image index, view), batched, on the device of the images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float32, Int, Int64, UInt8
from torch import Tensor

from ssl_transfer.data import counter
from ssl_transfer.data.device import to_device, to_device_together
from ssl_transfer.data.views.blur import blur_
from ssl_transfer.data.views.color import JITTER_ORDERS, gray, hue_place, jitter_, put_, solarize
from ssl_transfer.data.views.compiling import require_compiler
from ssl_transfer.data.views.crop import CROP_TRIES, padded_crop_box, resample, resized_crop_box
from ssl_transfer.data.views.cutout import cutout_

# Where each parameter finds its draws. An operation keeps its place when others are switched off, so switching one
# on or off leaves the rest of a view as it was.
_POSITION, _FLIP, _JITTER, _FACTORS, _ORDER = slice(0, 2), 2, 3, slice(4, 8), 8
_GRAYSCALE, _BLUR, _SIGMA, _SOLARIZE, _CUTOUT = 9, 10, 11, 12, slice(13, 15)
_TRIES = slice(16, 16 + 2 * CROP_TRIES)

# In flight on a CPU: 128 images of 32 x 32, measured best; more where compiled operations keep nothing in between.
_CHUNK_VALUES, _COMPILED_CHUNK_VALUES = 3 * 2**17, 3 * 2**19


@dataclass(frozen=True)
class Parameters:
    """What is done to each image of a batch; identity values where an operation is not applied.

    ``box`` is (top, left, height, width) in source pixels, ``order`` indexes ``JITTER_ORDERS``, ``hue`` is in turns of
    the color circle, ``sigma`` is 0 without blur, ``cutout`` is the (row, column) of the square's center.
    """

    box: Int64[Tensor, "n 4"]
    flip: Bool[Tensor, " n"]
    brightness: Float32[Tensor, " n"]
    contrast: Float32[Tensor, " n"]
    saturation: Float32[Tensor, " n"]
    hue: Float32[Tensor, " n"]
    order: Int64[Tensor, " n"]
    grayscale: Bool[Tensor, " n"]
    sigma: Float32[Tensor, " n"]
    solarize: Bool[Tensor, " n"]
    cutout: Int64[Tensor, "n 2"]

    def __getitem__(self, rows: slice | Int64[Tensor, " m"]) -> "Parameters":
        return Parameters(*(getattr(self, field.name)[rows] for field in fields(self)))


class Augment:
    """One kind of view. Every operation is off by default; probabilities and ranges mean what they mean in torchvision.

    Operations run in this order: crop and resize, flip, color jitter (its four parts in random order), grayscale, blur,
    solarize, cutout.

    Keyword arguments:
        size: side of a view in pixels.
        crop_scale: range of a random crop's share of the image's area; without it the whole image is resized.
        crop_ratio: range of a random crop's width by its height.
        crop_padding: instead, cut a box of ``size`` out of the image enlarged on each side by its reflection.
        flip: probability of a horizontal flip.
        color_jitter: probability of a change of brightness, contrast, saturation and hue.
        brightness: strength of this part of the color jitter.
        contrast: likewise.
        saturation: likewise.
        hue: likewise.
        grayscale: probability that colors become grays.
        blur: probability of a blur.
        solarize: probability that bright pixels are inverted.
        blur_sigma: range of the blur's standard deviation in pixels.
        solarize_threshold: value from which on pixels are inverted.
        cutout: side in pixels of a mid-gray square at a random place; 0: none.
        compiled: let torch.compile fuse what surrounds the crops: conversion, color jitter and grayscale.

    Raises:
        ValueError: an option is out of its range, or there is no compiler to compile with.
    """

    def __init__(
        self,
        size: int,
        *,
        crop_scale: tuple[float, float] | None = None,
        crop_ratio: tuple[float, float] = (3 / 4, 4 / 3),
        crop_padding: int = 0,
        flip: float = 0.0,
        color_jitter: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        grayscale: float = 0.0,
        blur: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        solarize: float = 0.0,
        solarize_threshold: float = 0.5,
        cutout: int = 0,
        compiled: bool = False,
    ):
        if size < 1:
            raise ValueError(f"size {size} must be at least 1 pixel.")
        if crop_scale and crop_padding:
            raise ValueError(
                f"crop_scale {crop_scale} and crop_padding {crop_padding} are two ways to crop: give one of them."
            )
        if crop_scale and not 0 < crop_scale[0] <= crop_scale[1] <= 1:
            raise ValueError(f"crop_scale {crop_scale} must be (low, high) with 0 < low <= high <= 1.")
        if not 0 < crop_ratio[0] <= crop_ratio[1]:
            raise ValueError(f"crop_ratio {crop_ratio} must be (low, high) with 0 < low <= high.")
        if not 0 < blur_sigma[0] <= blur_sigma[1]:
            raise ValueError(f"blur_sigma {blur_sigma} must be (low, high) with 0 < low <= high.")
        if not 0 <= hue <= 0.5:
            raise ValueError(f"hue {hue} must lie in [0, 0.5], in turns of the color circle.")
        for name, value in dict(brightness=brightness, contrast=contrast, saturation=saturation).items():
            if value < 0:
                raise ValueError(f"{name} {value} must not be negative.")
        for name, value in dict(crop_padding=crop_padding, cutout=cutout).items():
            if value < 0:
                raise ValueError(f"{name} {value} must not be negative.")
        if compiled:
            require_compiler()
        probabilities = dict(flip=flip, color_jitter=color_jitter, grayscale=grayscale, blur=blur, solarize=solarize)
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} {value} is a probability and must lie in [0, 1].")
        self.size = size
        self.crop_scale, self.crop_ratio, self.crop_padding = crop_scale, crop_ratio, crop_padding
        self.flip, self.color_jitter, self.grayscale = flip, color_jitter, grayscale
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.blur, self.blur_sigma = blur, blur_sigma
        self.solarize, self.solarize_threshold = solarize, solarize_threshold
        self.cutout = cutout
        self.compiled = compiled

    def __call__(
        self, images: UInt8[Tensor, "n c h w"], *, seed: int, epoch: int, index: Int[Tensor, " n"], view: int
    ) -> Float32[Tensor, "n c size size"]:
        """The given view of each image, in [0, 1]; ``index`` holds the images' rows in their data set.

        Raises:
            ValueError: an image with its padding is smaller than a view, or the seed, epoch or view is out of range.
        """
        height, width = images.shape[2:]
        return self.apply(images, self.parameters(height, width, seed=seed, epoch=epoch, index=index, view=view))

    @property
    def form(self) -> tuple[object, ...]:
        """What is not drawn for each image: two augmentations that share it can be applied as one."""
        return self.size, self.crop_padding > 0, self.solarize_threshold, self.cutout, self.compiled

    def parameters(
        self, height: int, width: int, *, seed: int, epoch: int, index: Int[Tensor, " n"], view: int
    ) -> Parameters:
        """Draw what happens to images of the given size. On the CPU, so no device is waited for to branch on it.

        Raises:
            ValueError: as when views are made.
        """
        draws = _TRIES.stop if self.crop_scale else _TRIES.start
        drawn = counter.uniform(seed, counter.AUGMENT, epoch, index.cpu(), view, draws)
        jittered = drawn[:, _JITTER] < self.color_jitter
        brightness, contrast, saturation, turns = drawn[:, _FACTORS].unbind(1)
        low, high = self.blur_sigma
        sigma = low + (high - low) * drawn[:, _SIGMA]
        return Parameters(
            box=self._box(drawn, height, width),
            flip=drawn[:, _FLIP] < self.flip,
            brightness=_factor(brightness, self.brightness, jittered),
            contrast=_factor(contrast, self.contrast, jittered),
            saturation=_factor(saturation, self.saturation, jittered),
            hue=(2 * turns - 1 + 2.0**-24) * self.hue * jittered,  # the middle of a draw's interval, so never 0
            order=(drawn[:, _ORDER] * len(JITTER_ORDERS)).long(),
            grayscale=drawn[:, _GRAYSCALE] < self.grayscale,
            sigma=sigma * (drawn[:, _BLUR] < self.blur),
            solarize=drawn[:, _SOLARIZE] < self.solarize,
            cutout=(drawn[:, _CUTOUT] * self.size).long(),
        )

    def apply(self, images: UInt8[Tensor, "n c h w"], parameters: Parameters) -> Float32[Tensor, "m c size size"]:
        """Carry out the parameters, image by image independent of the rest of the batch to the last bit.

        There may be parameters of several views of all images, one view after the other.
        """
        n, (_, channels, height, width) = len(parameters.hue), images.shape
        pixels = channels * max(self.size**2, height * width)
        values = _COMPILED_CHUNK_VALUES if self.compiled else _CHUNK_VALUES
        chunk = max(1, values // pixels) if images.device.type == "cpu" else n
        rows = hue_place(parameters.hue, parameters.order).argsort(stable=True)  # as the jitter wants them
        parameters = parameters[rows]
        views = torch.empty(n, channels, self.size, self.size, device=images.device)
        to, source = to_device_together(images.device, rows, rows % max(1, len(images)))
        for start in range(0, n, chunk):
            some = slice(start, start + chunk)
            self._chunk(images.index_select(0, source[some]), parameters[some], views, to[some])
        return views

    def _chunk(
        self,
        images: UInt8[Tensor, "n c h w"],
        parameters: Parameters,
        views: Float32[Tensor, "all c size size"],
        rows: Int64[Tensor, " n"],
    ) -> None:
        """Make the views of some images, in these rows of ``views``."""
        device = images.device
        made = resample(
            images,
            parameters.box,
            parameters.flip,
            self.size,
            reflect=self.crop_padding > 0,
            compiled=self.compiled,
        )
        pieces = jitter_(
            made.flatten(2),
            parameters.brightness,
            parameters.contrast,
            parameters.saturation,
            parameters.hue,
            parameters.order,
            compiled=self.compiled,
        )
        if self.compiled and not (self.blur or self.solarize or self.cutout):
            put_(views.flatten(2), rows, pieces, parameters.grayscale)
            return
        flat = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        made = flat.view_as(made)
        if parameters.grayscale.any():
            _change_(flat, parameters.grayscale, lambda some: gray(some)[:, None].expand(-1, some.shape[1], -1))
        if parameters.sigma.any():
            blur_(made, parameters.sigma)
        if parameters.solarize.any():
            _change_(flat, parameters.solarize, lambda some: solarize(some, self.solarize_threshold))
        if self.cutout:
            cutout_(made, to_device(parameters.cutout, device), self.cutout)
        views.index_copy_(0, rows, made.clamp_(0, 1))

    def _box(self, drawn: Float32[Tensor, "n draws"], height: int, width: int) -> Int64[Tensor, "n 4"]:
        position = drawn[:, _POSITION]
        if self.crop_scale:
            tries = drawn[:, _TRIES].unflatten(1, (CROP_TRIES, 2))
            return resized_crop_box(tries, position, height, width, self.crop_scale, self.crop_ratio)
        if self.crop_padding:
            if min(height, width) + 2 * self.crop_padding < self.size:
                raise ValueError(
                    f"size {self.size} exceeds {height} x {width} images with crop_padding {self.crop_padding}."
                )
            return padded_crop_box(position, height, width, self.size, self.crop_padding)
        return torch.tensor([[0, 0, height, width]]).expand(len(drawn), 4)


def make_views(
    augments: Sequence[Augment],
    images: UInt8[Tensor, "n c h w"],
    *,
    seed: int,
    epoch: int,
    index: Int[Tensor, " n"],
) -> tuple[Float32[Tensor, "n c _ _"], ...]:
    """The view by each of ``augments`` of every image, numbered in their order.

    On a GPU views whose operations differ in how often and how strongly alone are made in one pass, with half the
    launches for two. They are the same views.

    Raises:
        ValueError: as :class:`Augment` does.
    """
    first, joined = augments[0], images.is_cuda and not augments[0].compiled
    height, width = images.shape[2:]
    drawn = [
        augment.parameters(height, width, seed=seed, epoch=epoch, index=index, view=view)
        for view, augment in enumerate(augments)
    ]
    if joined and all(augment.form == first.form for augment in augments):
        return first.apply(images, together(drawn)).chunk(len(augments))
    return tuple(augment.apply(images, of_view) for augment, of_view in zip(augments, drawn, strict=True))


def together(drawn: Sequence[Parameters]) -> Parameters:
    """The parameters of several batches, one after the other."""
    return Parameters(*(torch.cat([getattr(part, field.name) for part in drawn]) for field in fields(Parameters)))


def _factor(drawn: Float32[Tensor, " n"], strength: float, jittered: Bool[Tensor, " n"]) -> Float32[Tensor, " n"]:
    """Uniform in [max(0, 1 - strength), 1 + strength] where jittered, else 1."""
    low, high = max(0.0, 1 - strength), 1 + strength
    return torch.where(jittered, low + (high - low) * drawn, 1.0)


def _change_(
    images: Float32[Tensor, "n c p"],
    chosen: Bool[Tensor, " n"],
    operation: Callable[[Float32[Tensor, "m c p"]], Float32[Tensor, "m c p"]],
) -> None:
    """Carry out an operation on the chosen images alone, or on a GPU on all, of which the chosen ones are kept."""
    if images.is_cuda:
        kept = to_device(chosen[:, None, None], images.device)
        torch.where(kept, operation(images), images, out=images)
        return
    rows = to_device(chosen.nonzero()[:, 0], images.device)
    images.index_copy_(0, rows, operation(images.index_select(0, rows)))
