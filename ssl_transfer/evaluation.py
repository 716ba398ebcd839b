"""What an evaluation program is pointed at: a run folder, a timm network or a file of features, as features and labels.

The programs in ``eval/`` are these features and one probe. They run alone or under ``accelerate launch``; several
processes share the work of computing features and print the same numbers as one.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from jaxtyping import Float32
from timm.models import get_pretrained_cfg
from torch import Tensor

from ssl_transfer import runs
from ssl_transfer.checkpoint import ModelSpec, build_model, load_model
from ssl_transfer.data import Images, load_images
from ssl_transfer.distributed import gather_shards, shard
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.models import EmbeddingModel, Output
from ssl_transfer.probes import Features, extract_features, load_feature_file, raw_pixels


@dataclass(frozen=True)
class Subject:
    """Whose features these are, and how they were computed."""

    name: str
    features: Features
    protocol: dict[str, Any]


def evaluate(
    program: str, probe: Callable[[Features, argparse.Namespace], Sequence[str]], *options: tuple[str, dict[str, Any]]
) -> None:
    """Read the command line, get the features it names, and print the lines that ``probe`` returns for them.

    ``options`` are further arguments of the probe, as for argparse. A user's mistake is one message and exit code 2.
    """
    parser = argparse.ArgumentParser(description=program, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", nargs="?", type=Path, help="a folder with model.safetensors, such as runs/digits-transfer"
    )
    parser.add_argument("--timm", metavar="NAME", help="a timm network with its pretrained weights instead")
    parser.add_argument("--features", type=Path, metavar="FILE", help="an npz file: train_x, train_y, test_x, test_y")
    parser.add_argument("--dataset", help="default: the one that the run was trained on")
    parser.add_argument("--root", type=Path, help="where the data set lies; default: where the run found it")
    parser.add_argument("--layer", default="features", choices=("features", "projection", "embedding"))
    for name, settings in options:
        parser.add_argument(name, **settings)
    given = parser.parse_args()
    try:
        with user_mistakes():
            subject = _subject(given)
            if PartialState().is_main_process:
                print(f"{subject.name}  ({', '.join(f'{key} {value}' for key, value in subject.protocol.items())})")
                print("\n".join(probe(subject.features, given)))
        PartialState().destroy_process_group()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@torch.no_grad()
def compute_features(
    model: EmbeddingModel | None,
    images: Images,
    *,
    layer: str = "features",
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Float32[Tensor, "n d"]:
    """Features of all images on every process, each having computed its part; without a model, the pixels."""
    if model is None:
        return raw_pixels(images.pixels)
    output = Output(model, layer).to(images.pixels.device).to(memory_format=torch.channels_last).eval()
    own = images.pixels[shard(len(images))]
    with autocast():
        # A process beyond the last image still has to know the width: it computes one image and keeps none.
        rows = extract_features(output, own) if len(own) else extract_features(output, images.pixels[:1])[:0]
    return gather_shards(rows, len(images))


def _subject(given: argparse.Namespace) -> Subject:
    named = [name for name in ("run", "timm", "features") if getattr(given, name) is not None]
    if len(named) != 1:
        raise UserError(
            f"name one of a run folder, --timm NAME or --features FILE; given: {', '.join(named) or 'none'}"
        )
    if given.features is not None:
        return Subject(str(given.features), load_feature_file(given.features), {"layer": "as saved"})
    dataset, root = given.dataset, given.root
    if given.run is not None and (dataset is None or root is None):
        data = runs.read_recipe(given.run).data
        dataset, root = dataset or data.dataset, root or Path(data.root)
    if dataset is None:
        raise UserError("name the data set to score on: --dataset digits, cifar10 or cifar100")
    state = PartialState(cpu=not torch.cuda.is_available())
    with state.main_process_first():
        splits = [load_images(dataset, root or Path("data"), split=split, download=True) for split in ("train", "test")]
    train, test = (images.to(state.device) for images in splits)
    model = load_model(given.run)[0] if given.run is not None else _pretrained(given.timm, train)
    x = [compute_features(model, images, layer=given.layer) for images in (train, test)]
    assert train.labels is not None and test.labels is not None
    protocol = {
        "layer": given.layer,
        "width": x[0].shape[1],
        "precision": "float32",  # whatever the run was scored in
        "data": dataset,
        "train": len(train),
        "test": len(test),
    }
    return Subject(str(given.run or given.timm), Features(x[0], train.labels, x[1], test.labels), protocol)


def _pretrained(name: str, images: Images) -> EmbeddingModel:
    known = get_pretrained_cfg(name)
    mean, std = (images.mean, images.std) if known is None else (known.mean, known.std)
    size = images.pixels.shape[-1]
    spec = ModelSpec(name, "default", in_chans=len(mean), image_size=size, mean=mean, std=std)
    return build_model(spec, pretrained=True).eval()
