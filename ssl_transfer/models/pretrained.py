"""Published networks with the weights and the preprocessing they were published with."""

import difflib
from typing import Any

import timm
from torch import Tensor, nn

from ssl_transfer.models.backbones import Backbone, Preprocessing, feature_width

Color = tuple[float, ...]


def timm_pretrained(
    name: str, *, mean: Color | None = None, std: Color | None = None, image_size: int | None = None
) -> Backbone:
    """The timm network ``name`` with its pretrained weights, at the input size and normalization of these weights.

    ``name`` is one of ``timm.list_pretrained()``, or ``hf-hub:OWNER/NAME`` or ``local-dir:FOLDER``. ``mean``, ``std``
    and ``image_size`` replace what the weights bring; one value in ``mean`` and ``std`` builds it for one channel.

    Raises:
        ValueError: there is no such network, it has no weights or they cannot be had.
    """
    options: dict[str, Any] = {"pretrained": True, "num_classes": 0}
    if mean is not None:
        options["in_chans"] = len(mean)
    network = _timm(name, options)
    config = network.pretrained_cfg
    if image_size is not None and config.get("fixed_input_size") and config["input_size"][-1] != image_size:
        network = _timm(name, {**options, "img_size": image_size})
    return _wrap(
        network,
        name,
        mean or tuple(config["mean"]),
        std or tuple(config["std"]),
        image_size or config["input_size"][-1],
    )


def torchvision_pretrained(
    name: str, *, mean: Color | None = None, std: Color | None = None, image_size: int | None = None
) -> Backbone:
    """The torchvision network ``name`` (or ``name.WEIGHTS``) with its pretrained weights, prepared as its weights ask.

    A ResNet becomes timm's ResNet, which has the same weights and gives feature maps too. Any other network stays
    torchvision's own, and its features are what enters its last linear layer.

    Raises:
        ValueError: there is no such network or there are no such weights.
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
    state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return _wrap(
        _torchvision(architecture, state),
        name,
        mean or tuple(prepared.mean),
        std or tuple(prepared.std),
        image_size or prepared.crop_size[0],
    )


def _timm(name: str, options: dict[str, Any]) -> Any:
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_pretrained() lists them"
        raise ValueError(f"there is no network named {name!r} in timm: {hint}")
    try:
        return timm.create_model(name, **options)
    except Exception as error:  # no such weights, no connection, no such folder: timm has no error type of its own
        reason = " ".join(str(error).split())[:200]
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


def _wrap(network: nn.Module, name: str, mean: Color, std: Color, image_size: int) -> Backbone:
    if len(mean) != len(std):
        raise ValueError(f"mean {mean} and std {std} must have one value for each channel")
    width = feature_width(network, name, len(mean), image_size)
    backbone = Backbone(
        network, name=name, num_features=width, preprocessing=Preprocessing(tuple(mean), tuple(std), image_size)
    )
    return backbone.eval()
