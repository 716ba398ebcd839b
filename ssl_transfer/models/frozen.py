"""A teacher that cannot train."""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn


class Frozen(nn.Module):
    """A module that cannot train: no gradients, always in eval mode, and in nobody's checkpoint.

    Its state dict is empty and loading one changes nothing, so that a student which holds its teacher is
    saved and loaded without it.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> "Frozen":
        """Stay in eval mode, so that batch-norm statistics stay put."""
        return self

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module gives, without gradient."""
        return self.module(*args, **kwargs)

    def state_dict(  # type: ignore[override]
        self, *args: Any, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Nothing: whoever made the teacher keeps its weights."""
        return OrderedDict() if destination is None else destination

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # torch asks every module inside for its keys. Answering with the values in place means that none is
        # missing and none changes.
        state_dict.update(self.module.state_dict(prefix=f"{prefix}module."))
        super()._load_from_state_dict(state_dict, prefix, *args)
