"""What an export made, for the model card and the person; and the check that each export goes through."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_transfer.models import EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec


@dataclass(frozen=True)
class Artifact:
    """Exported files in words."""

    library: str  # as Hugging Face calls what loads them
    load: str  # Python that does; {location} stands for the folder
    notes: tuple[str, ...]  # what the person should know, in sentences


def sample_images(spec: ModelSpec, n: int) -> Tensor:
    """Images in [0, 1] to compare an export with its run on; the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, spec.in_chans, spec.image_size, spec.image_size, generator=generator)


def stand_ins(spec: ModelSpec) -> str:
    """A line of Python that defines ``images`` as the exported model takes them."""
    return f"images = torch.rand(2, {spec.in_chans}, {spec.image_size}, {spec.image_size})  # yours, in [0, 1]\n"


@torch.no_grad()
def run_outputs(model: EmbeddingModel, images: Tensor) -> dict[str, Tensor]:
    """What the run's model gives for ``images``."""
    return model.eval().outputs(images)


def check_outputs(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, tolerance: float) -> None:
    """Refuse an export whose outputs are not those of the run, in units of the output's largest value.

    Raises:
        ValueError: names the output and the distance.
    """
    for name, values in expected.items():
        error = (given[name] - values).abs().max().item() / values.abs().max().clamp(min=1).item()
        if not error <= tolerance:  # a NaN is refused as well
            raise ValueError(
                f"the exported model's {name} differ from the run's by {error:.1e} (at most {tolerance:.0e} is "
                "allowed), so nothing was written: please report this with your versions of timm, torch and onnx"
            )
