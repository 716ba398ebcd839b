"""Any timm network as a backbone that eats images in [0, 1] and owns its preprocessing."""

import difflib
import math
import textwrap
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import Tensor, nn

import ssl_transfer.models.small  # noqa: F401  (registers the small CIFAR networks in timm)
from ssl_transfer.models.hub import offline_if_unreachable
from ssl_transfer.models.stems import cifar_stem


@dataclass(frozen=True)
class Preprocessing:
    """What a backbone does to images in [0, 1] before its network sees them.

    ``mean`` and ``std`` have a value for each channel; ``input_size`` is the side in pixels that images are brought to.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: int


class Backbone(nn.Module):
    """Pooled features of images in [0, 1]: resize if needed, normalize, then the timm network in ``network``.

    ``name`` is timm's of the network and ``num_features`` the width of its features. ``preprocessing`` is the size to
    which images are brought, and what they are normalized by. Mean and standard deviation are saved with the weights: a
    checkpoint brings the normalization it was trained with, whatever the model was built with before loading it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, name: str, num_features: int, preprocessing: Preprocessing):
        super().__init__()
        self.network = network
        self.name = name
        self.num_features = num_features
        self.input_size = preprocessing.input_size
        self.frozen: tuple[str, ...] = ()  # modules of the network that stay in eval mode, see freezing.py
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training, but for what is frozen."""
        super().train(mode)
        for name in self.frozen:
            self.network.get_submodule(name).eval()
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """The mean, standard deviation and input size in use now (float32 holds seven digits)."""
        mean, std = (tuple(round(value, 6) for value in buffer.flatten().tolist()) for buffer in (self.mean, self.std))
        return Preprocessing(mean, std, self.input_size)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Pooled features of the last layer.

        Raises:
            ValueError: the images have another number of channels than the backbone was built for.
        """
        return self.network(self.prepare(images))

    def feature_maps(self, images: Float[Tensor, "n c h w"]) -> list[Float[Tensor, "n _ _ _"]]:
        """Feature maps of the network's stages, shallow to deep.

        Raises:
            ValueError: the network does not give them, or the images have another number of channels.
        """
        return self._forward_intermediates(images, intermediates_only=True)

    def maps_and_features(
        self, images: Float[Tensor, "n c h w"]
    ) -> tuple[list[Float[Tensor, "n _ _ _"]], Float[Tensor, "n d"]]:
        """What :meth:`feature_maps` and :meth:`forward` give, in one pass.

        Raises:
            ValueError: the network does not give feature maps, or the images have another number of channels.
        """
        network: Any = self.network
        last, maps = self._forward_intermediates(images)
        return maps, network.forward_head(last)

    def _forward_intermediates(self, images: Float[Tensor, "n c h w"], **options: bool) -> Any:
        network: Any = self.network
        if not hasattr(network, "forward_intermediates"):
            raise ValueError(
                f"backbone {self.name!r} does not give feature maps: choose one with forward_intermediates"
            )
        return network.forward_intermediates(self.prepare(images), **options)

    def prepare(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c size size"]:
        """Resize to the input size if it differs (bilinear, antialiased), then normalize.

        Raises:
            ValueError: the images have another number of channels than the backbone was built for.
        """
        if images.shape[1] != len(self.mean):  # one channel would broadcast to three without a word
            raise ValueError(
                f"backbone {self.name!r} was built for {len(self.mean)} channels and was given images of "
                f"{images.shape[1]}: build it with in_chans={images.shape[1]}, or convert the images"
            )
        size = (self.input_size, self.input_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return (images - self.mean) / self.std


def create_backbone(
    name: str,
    *,
    pretrained: bool = False,
    stem: str = "default",
    in_chans: int = 3,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    drop_path: float = 0.0,
    pooling: str | None = None,
) -> Backbone:
    """Build the timm network ``name`` without its classifier and wrap it with its preprocessing.

    Families with a fixed input size (vision transformers and their like) are built for ``image_size``. A family whose
    smallest size is larger, or whose patches do not fill the images, gets images resized to a larger size, see
    :func:`sized_backbone`. ``stem`` is ``default`` or ``cifar``, see :mod:`ssl_transfer.models.stems`; ``drop_path`` is
    timm's ``drop_path_rate``. ``pooling`` is one of timm's, where the family takes it; None leaves it the family's.
    ``mean`` and ``std`` have a value for each of ``in_chans`` channels.

    Raises:
        ValueError: there is no such network, stem or pretrained weights, or the network cannot take such images, which
            is found by running it once here rather than at the first step.
    """
    config = _timm_config(name)
    if stem not in ("default", "cifar"):
        raise ValueError(f"there is no stem named {stem!r}: choose 'default' or 'cifar'")
    if not len(mean) == len(std) == in_chans:
        raise ValueError(f"mean {mean} and std {std} must have one value for each of the {in_chans} channels")
    options: dict[str, Any] = {}
    if drop_path:  # not every family knows it
        options["drop_path_rate"] = drop_path
    if pooling is not None:
        options["global_pool"] = pooling

    def build(size: int) -> nn.Module:
        if config.fixed_input_size:  # timm's promise that the network takes img_size
            options["img_size"] = size
        try:
            with offline_if_unreachable() if pretrained else nullcontext():
                network = timm.create_model(name, pretrained=pretrained, in_chans=in_chans, num_classes=0, **options)
        except Exception as error:  # a missing keyword, no weights, no network: timm has no error type of its own
            asked = f"{size} px, {in_chans} channels, pretrained {pretrained}" + "".join(
                f", {key} {value}" for key, value in {"drop_path": drop_path, "pooling": pooling}.items() if value
            )
            raise ValueError(f"backbone {name!r} cannot be built for {asked} ({_one_line(error)})") from error
        return cifar_stem(network, name) if stem == "cifar" else network

    smallest = max(image_size, *(config.min_input_size or (0,))[-2:])
    asked = Preprocessing(tuple(mean), tuple(std), smallest)
    return sized_backbone(build, name, asked, own_size=config.input_size[-1], rebuild=bool(config.fixed_input_size))


def sized_backbone(
    build: Callable[[int], nn.Module], name: str, asked: Preprocessing, *, own_size: int, rebuild: bool
) -> Backbone:
    """The network that ``build`` makes for a size in pixels, at the first size from that asked for that it sees whole.

    Patches of 16 px fill 32 px and leave out almost half of 30 px, so a network of such patches gets images of 30 px
    brought to 32. ``own_size`` is that of its published weights and is kept in any case: they were trained so.
    ``rebuild`` says that the network is built for one size; else the same one is run at each.

    Raises:
        ValueError: the network cannot take such images, does not pool, or leaves out edges at larger sizes too.
    """
    if len(asked.mean) != len(asked.std):
        raise ValueError(f"mean {asked.mean} and std {asked.std} must have one value for each channel")
    size, in_chans = asked.input_size, len(asked.mean)
    network = build(size)
    width, whole = _trial(network, name, in_chans, size)
    step = _first_stride(network) if rebuild else 1
    while not whole and asked.input_size != own_size:
        size += step - size % step
        if size > asked.input_size + 64:  # twice the largest patch in timm
            raise ValueError(
                f"backbone {name!r} leaves out the right and lower edges of images of {asked.input_size} px: choose "
                "another size or another backbone"
            )
        network = build(size) if rebuild else network
        width, whole = _trial(network, name, in_chans, size)
    return Backbone(network, name=name, num_features=width, preprocessing=replace(asked, input_size=size))


def _timm_config(name: str) -> PretrainedCfg:
    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else "timm.list_models() lists them"
        raise ValueError(f"there is no backbone named {name!r} in timm: {hint}")
    try:
        return get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError as error:
        architecture = name.partition(".")[0]
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*")) or "none"
        raise ValueError(f"there are no weights named {name!r} in timm: of {architecture} it has {tags}") from error


def _trial(network: nn.Module, name: str, in_chans: int, size: int) -> tuple[int, bool]:
    """The width of what ``network`` gives for images of ``size``, and whether it sees them whole, by running it once.

    Whatever a network computes of a pixel that is no number is no number either, through gates and zero weights too.
    One such pixel near the last corner shows whether there are edges that the network leaves out, as a grid of patches
    does that ends before the image does. The last hundredth may be: strides without padding leave out a row.

    Raises:
        ValueError: it cannot take such images, or does not pool.
    """
    images = torch.zeros(2, in_chans, size, size)
    last = -1 - size // 100
    images[1, :, last, last] = math.nan
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network(images)
    except Exception as error:  # each family fails in its own way: assertions, shapes, indices
        raise ValueError(
            f"backbone {name!r} cannot take images of {size} px: choose larger images or another "
            f"backbone ({_one_line(error)})"
        ) from error
    network.train(training)
    if features.ndim != 2:
        raise ValueError(f"backbone {name!r} does not pool: its output is {features.ndim}-dimensional, choose another")
    return features.shape[1], bool(features.isnan().any())


def _first_stride(network: nn.Module) -> int:
    """The stride of the first convolution, a patch's size where that makes patches."""
    return next((module.stride[0] for module in network.modules() if isinstance(module, nn.Conv2d)), 1)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 200, placeholder=' ...')}"
