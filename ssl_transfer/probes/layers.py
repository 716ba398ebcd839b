"""Features from inside a network: the pooled output of any of its layers."""

import difflib
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PooledLayer(nn.Module):
    """The output of one layer of a timm network, averaged over positions.

    Feature maps are averaged over height and width, tokens over patches without the class and register tokens; an
    output that is already pooled stays as it is. ``name`` is that of a module, as in ``network.feature_info`` or
    ``network.named_modules()``; if the layer runs several times, its last output counts. ``model`` prepares images and
    runs ``network``.

    Raises:
        ValueError: the network has no such layer; or, when called, it does not run it or the output cannot be pooled.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], network: nn.Module, name: str):
        super().__init__()
        self.model, self.network, self.name = model, network, name
        layers = dict(network.named_modules())
        if not name or name not in layers:
            raise ValueError(f"the network has no layer {name!r}: {_suggestions(name, network, list(layers))}.")
        self.channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        self.prefix_tokens = getattr(network, "num_prefix_tokens", 0)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """The pooled output of the layer for images in [0, 1].

        Raises:
            ValueError: the network did not run the layer.
        """
        outputs: list[Any] = []
        handle = self.network.get_submodule(self.name).register_forward_hook(lambda _, given, out: outputs.append(out))
        try:
            self.model(images)
        finally:
            handle.remove()
        if not outputs:
            raise ValueError(f"the network does not run its layer {self.name!r}; choose another.")
        return self._pool(outputs[-1])

    def _pool(self, output: Any) -> Float[Tensor, "n d"]:
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"layer {self.name!r} gives {shape}, which cannot be pooled; choose another.")
        if output.ndim == 4:
            return output.mean(dim=(1, 2) if self.channels_last else (2, 3), dtype=torch.float32)
        if output.ndim == 3:
            return output[:, self.prefix_tokens :].mean(dim=1, dtype=torch.float32)
        return output


def _suggestions(name: str, network: nn.Module, layers: list[str]) -> str:
    near = difflib.get_close_matches(name, layers, n=1)
    info = getattr(network, "feature_info", None) or []
    listed = [entry["module"] for entry in (info if isinstance(info, list) else info.info)]
    stages = ", ".join(dict.fromkeys(listed)) or ", ".join(layer for layer in layers if layer.count(".") == 0 and layer)
    return (f"did you mean {near[0]!r}? " if near else "") + f"choose one of {stages}, or any name of named_modules()"
