"""Published networks with the weights and the preprocessing they were published with."""

import difflib
import textwrap
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from ssl_transfer.models.backbones import Backbone, Preprocessing, sized_backbone
from ssl_transfer.models.hub import offline_if_unreachable

Color = tuple[float, ...]


def timm_pretrained(
    name: str, *, mean: Color | None = None, std: Color | None = None, image_size: int | None = None
) -> Backbone:
    """The timm network ``name`` with its pretrained weights, at the input size and normalization of these weights.

    ``name`` is one of ``timm.list_pretrained()``, or ``hf-hub:OWNER/NAME`` or ``local-dir:FOLDER``. ``mean``, ``std``
    and ``image_size`` replace what the weights bring; one value in ``mean`` and ``std`` builds it for one channel. A
    network whose patches do not fill ``image_size`` is built for the next size that they do. It is in eval mode.

    Raises:
        ValueError: there is no such network, it has no weights or they cannot be had, it cannot take such images, or
            ``mean`` and ``std`` are not of the same length.
    """
    options: dict[str, Any] = {"pretrained": True, "num_classes": 0}
    if mean is not None:
        options["in_chans"] = len(mean)
    published = _timm(name, options)
    config = published.pretrained_cfg
    own_size, fixed = config["input_size"][-1], bool(config.get("fixed_input_size"))

    def build(size: int) -> nn.Module:
        return _timm(name, {**options, "img_size": size}) if fixed and size != own_size else published

    asked = Preprocessing(
        tuple(mean or config["mean"]), tuple(std or config["std"]), own_size if image_size is None else image_size
    )
    return sized_backbone(build, name, asked, own_size=own_size, rebuild=fixed).eval()


def torchvision_pretrained(
    name: str, *, mean: Color | None = None, std: Color | None = None, image_size: int | None = None
) -> Backbone:
    """The torchvision network ``name`` (or ``name.WEIGHTS``) with its pretrained weights, prepared as its weights ask.

    A ResNet becomes timm's ResNet, which has the same weights and gives feature maps too. Any other network stays
    torchvision's own, and its features are what enters its last linear layer. ``mean``, ``std`` and ``image_size``
    replace what the weights bring. It is in eval mode.

    Raises:
        ValueError: there is no such network or there are no such weights, or they cannot be had; the network has no
            linear layer or cannot take such images; or ``mean`` and ``std`` are not of the same length.
    """
    import torchvision.models as published

    architecture, _, tag = name.partition(".")
    known = sorted(set(published.list_models(module=published)) - {"googlenet", "inception_v3"})
    if architecture not in known:  # those two rescale their input by themselves when they load weights
        near = difflib.get_close_matches(architecture, known, n=3)
        raise ValueError(
            f"there is no network named {architecture!r} in torchvision to teach: "
            + (f"did you mean {' or '.join(near)}?" if near else "torchvision.models.list_models() lists them")
        )
    available = published.get_model_weights(architecture)
    if tag and tag not in available.__members__:
        raise ValueError(
            f"torchvision has no weights {tag!r} of {architecture}: choose {', '.join(available.__members__)}"
        )
    weights = available[tag] if tag else available["DEFAULT"]
    prepared = weights.transforms()
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # no connection, no room; a hash that is wrong
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise ValueError(f"the weights of {name!r} cannot be had from torchvision ({reason})") from error
    network = _torchvision(architecture, state)
    own_size = prepared.crop_size[0]
    asked = Preprocessing(
        tuple(mean or prepared.mean), tuple(std or prepared.std), own_size if image_size is None else image_size
    )
    return sized_backbone(lambda size: network, name, asked, own_size=own_size, rebuild=False).eval()


def _timm(name: str, options: dict[str, Any]) -> Any:
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_pretrained() lists them"
        raise ValueError(f"there is no network named {name!r} in timm: {hint}")
    kind, _, folder = name.partition(":")
    try:
        if kind == "local-dir":
            return timm.create_model(f"{kind}:{Path(folder).expanduser()}", **options)
        with offline_if_unreachable():
            return timm.create_model(name, **options)
    except Exception as error:  # no such weights, no connection, no such folder: timm has no error type of its own
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise ValueError(f"the pretrained network {name!r} cannot be had from timm ({reason})") from error


def _torchvision(architecture: str, state: dict[str, Tensor]) -> nn.Module:
    import torchvision.models as published

    own = published.get_model(architecture, weights=None)
    own.load_state_dict(state)
    if isinstance(own, published.ResNet):
        network = timm.create_model(architecture, num_classes=0)
        network.load_state_dict({key: value for key, value in own.state_dict().items() if not key.startswith("fc.")})
        return network
    linear = [path for path, module in own.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"torchvision's {architecture} has no linear classifier to take off: choose another network")
    parent, _, child = linear[-1].rpartition(".")
    setattr(own.get_submodule(parent), child, nn.Identity())
    return own
