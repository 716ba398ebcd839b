"""``ssl-transfer doctor``: is this teacher loaded as it was trained, and has it something to teach on these images?"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_transfer import config, runs
from ssl_transfer.building.data import OpenSplits
from ssl_transfer.catalog.roles import teacher_word
from ssl_transfer.context import Context
from ssl_transfer.data import Images
from ssl_transfer.errors import user_mistakes
from ssl_transfer.models import EmbeddingModel, Output
from ssl_transfer.probes import effective_rank, extract_features, knn_leave_one_out, raw_pixels
from ssl_transfer.probes.batch_norm_statistics import batch_norm_mismatch
from ssl_transfer.teachers.loading import open_teacher

NEIGHBORS = 20
NEAREST = 10  # rows that are asked how far they stand out from the others
PAIRED = 2000  # rows of which all pairs are looked at: 2,000 have two million

# The ways to normalize that people mix up, beside the teacher's own and the data's.
NORMALIZATIONS = {
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half and half, mean 0.5 and std 0.5,": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none, mean 0 and std 1,": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "that of values up to 255, mean 0 and std 1/255,": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}


@dataclass(frozen=True)
class Geometry:
    """What the rows of an embedding look like, labels apart."""

    width: int
    still: int  # dimensions that are the same for all images
    norm: float
    norm_sd: float
    rank: float  # effective, around the mean
    cosine: float  # mean of pairs
    median_distance: float  # squared, of pairs of normalized rows
    affinity: float  # mean of pairs, Gaussian at some sigma
    clearness: float  # how far a row's nearest others lie below the mean of its squared distances, in their sds


@dataclass(frozen=True)
class SeenPixels:
    """What the network gets to see: normalized pixels, and how its first batch norm likes them."""

    mean: float
    sd: float
    mismatch: dict[str, float]  # of the teacher's normalization ("own") and of others; empty without batch norm


def diagnose(path: Path, overrides: list[str], count: int) -> bool:
    """Load each teacher that a file names, run it on ``count`` training images, and print what is found.

    Returns whether something looks wrong.

    Raises:
        UserError: the file, the data or a teacher is not there or is wrong, in one sentence.
    """
    recipe = config.load_teacher(path, overrides)
    context = Context.start(recipe)
    splits, sigma = OpenSplits(context), getattr(recipe.task, "sigma", None)
    wrong = False
    for place, teacher in enumerate(recipe.teachers):
        with user_mistakes():
            folder = None if teacher.recipe is None else runs.folder_of(teacher.recipe)[0]
            model, report = open_teacher(teacher, folder)
            images = splits.opened(recipe, "train")
            lines, complaints = examine(context.place(model), teacher.output, images, count, sigma)
        title = f"{teacher_word(place, len(recipe.teachers))}: {teacher.title}, output {teacher.output}"
        verdict = [f"! {text}" for text in complaints] or ["Nothing looks wrong."]
        for line in [*([""] if place else []), title, *report, *lines, "", *verdict]:
            context.say(line)
        wrong = wrong or bool(complaints)
    return wrong


def doubts(recipe: config.Recipe, models: Sequence[EmbeddingModel], images: Images, count: int = 64) -> list[str]:
    """What looks wrong with the recipe's teachers, ``models``, at a glance: on ``count`` images, which take seconds."""
    if min(len(images), count) < 3:
        return []
    found = []
    for place, (teacher, model) in enumerate(zip(recipe.teachers, models, strict=True)):
        of = "" if len(models) == 1 else f"{teacher_word(place, len(models))}: "
        complaints = examine(model, teacher.output, images, count, getattr(recipe.task, "sigma", None))[1]
        found += [of + text for text in complaints]
    return found


def examine(
    model: EmbeddingModel, output: str, images: Images, count: int = 500, sigma: float | None = None
) -> tuple[list[str], list[str]]:
    """What a person should know of a teacher on these images, and what looks wrong, each with what to do about it.

    ``sigma`` is the width of the Gaussian affinity, None for a loss that has none.

    Raises:
        ValueError: the model lacks the output, or takes other images.
    """
    sample = _sample(images, count)
    pixels = torch.cat(list(sample.parts(slice(0, len(sample)))))
    seen = pixels_seen_by(model, pixels, images)
    Output(model, output)  # which refuses one that the model lacks
    outputs = _outputs(model, pixels)
    embedding = outputs.pop(output)
    geometry = geometry_of(embedding, 1.0 if sigma is None else sigma)
    knn = None if sample.labels is None else (_knn(embedding, sample.labels), _knn(raw_pixels(pixels), sample.labels))

    size, own = pixels.shape[-1], model.backbone.preprocessing
    resized = "" if size == own.input_size else f", brought to {own.input_size} px"
    lines = [
        f"images: {len(sample)} training images of {images.name}, {size} px{resized}",
        f"normalization: mean {_color(own.mean)}, std {_color(own.std)}; pixels then have mean {seen.mean:.2f}, "
        f"sd {seen.sd:.2f}"
        + (f", first batch norm off by {seen.mismatch['own']:.2f}" if seen.mismatch else ", no batch norm to ask"),
        f"output: {geometry.width} wide, norm {geometry.norm:.3g} ± {geometry.norm_sd:.2g}",
        f"spread: {_spread(geometry)}",
        f"affinity: median squared distance {geometry.median_distance:.2f} of normalized pairs, mean Gaussian affinity "
        f"{geometry.affinity:.2f} at sigma {1.0 if sigma is None else sigma:g}",
    ]
    if knn is not None:
        k = min(NEIGHBORS, len(sample) - 1)
        lines.append(
            f"neighbors: {100 * knn[0]:.1f} % of the images are of the class that their {k} nearest others say, "
            f"{100 * knn[1]:.1f} % by raw pixels"
        )
    lines += [_beside(name, rows, sample) for name, rows in outputs.items()]
    complaints = [*_about_seen(seen), *_about_geometry(geometry, output, model, sigma)]
    if knn is not None:
        complaints += _about_neighbors(*knn, len(sample))
    return lines, complaints


@torch.no_grad()
def pixels_seen_by(model: EmbeddingModel, pixels: Tensor, images: Images) -> SeenPixels:
    """What the network sees of ``pixels``, and whether another normalization would suit its first batch norm better."""
    backbone = model.backbone.eval()
    own = backbone.preprocessing
    device = backbone.mean.device
    ready = backbone.prepare(pixels[:64].to(device).float() / 255)
    resized = ready * backbone.std + backbone.mean
    others = {"the data set's": (images.mean, images.std), **NORMALIZATIONS}
    ways = {name: way for name, way in others.items() if len(way[0]) == len(own.mean)}
    mismatch = batch_norm_mismatch(backbone.network, resized, {"own": (own.mean, own.std), **ways})
    return SeenPixels(ready.mean().item(), ready.std().item(), mismatch)


def geometry_of(embedding: Float[Tensor, "n d"], sigma: float = 1.0) -> Geometry:
    """Norms and spread of an embedding's rows, and cosines and affinities of the pairs of its first 2,000."""
    x = embedding.double()
    centered = x - x.mean(dim=0)
    unit = F.normalize(x[:PAIRED], dim=1)
    row, column = torch.triu_indices(len(unit), len(unit), offset=1)
    cosines = unit @ unit.T
    cosine = cosines[row, column]
    distance = 2 - 2 * cosine
    norms = x.norm(dim=1)
    moves = centered.abs().max() > 1e-6 * x.abs().max().clamp(min=1e-30)
    return Geometry(
        width=x.shape[1],
        still=int((centered.abs().amax(dim=0) <= 1e-6 * x.abs().max()).sum()),
        norm=norms.mean().item(),
        norm_sd=norms.std().item(),
        rank=effective_rank(centered) if moves else 0.0,
        cosine=cosine.mean().item(),
        median_distance=distance.median().item(),
        affinity=torch.exp(-distance / sigma).mean().item(),
        clearness=_clearness(cosines),
    )


def _clearness(cosine: Float[Tensor, "n n"]) -> float:
    """The mean over rows and their nearest of -z, as the standardized affinity has it; 0 where distances are equal."""
    n = len(cosine)
    others = cosine[~torch.eye(n, dtype=torch.bool, device=cosine.device)].view(n, n - 1)
    nearest = others.topk(min(NEAREST, n - 1)).values.mean(dim=1)
    sd = others.std(dim=1, correction=0)
    return torch.where(sd > 1e-9, (nearest - others.mean(dim=1)) / sd, 0).mean().item()


@torch.no_grad()
def _outputs(model: EmbeddingModel, pixels: Tensor) -> dict[str, Tensor]:
    """All that the model gives, by name, from one pass through its backbone."""
    features = extract_features(Output(model, "features").eval(), pixels, batch_size=64)
    if model.head is None:
        return {"features": features}
    return {"features": features, model.head.output_name: model.head(features.to(model.backbone.mean)).to(features)}


def _sample(images: Images, count: int) -> Images:
    if len(images) < 3 or count < 3:
        raise ValueError(f"{min(len(images), count)} images are too few to say anything of a teacher: give at least 3")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images.subset(order[: min(count, len(images))])


def _knn(rows: Tensor, labels: Int64[Tensor, " n"]) -> float:
    return next(iter(knn_leave_one_out(rows, labels, k=min(NEIGHBORS, len(labels) - 1)).values()))


def _spread(geometry: Geometry) -> str:
    return (
        f"effective rank {geometry.rank:.1f} around the mean, mean cosine of pairs {geometry.cosine:.2f}, "
        f"{NEAREST} nearest {geometry.clearness:.2f} sd below the mean squared distance"
    )


def _beside(name: str, rows: Tensor, sample: Images) -> str:
    """The same of an output that is not transferred, to be compared with the one that is."""
    line = f"beside it, {name}: {_spread(geometry_of(rows))}"
    return line if sample.labels is None else f"{line}, {100 * _knn(rows, sample.labels):.1f} % by neighbors"


def _about_seen(seen: SeenPixels) -> list[str]:
    if seen.mismatch:
        own = seen.mismatch["own"]
        best = min(seen.mismatch, key=lambda name: seen.mismatch[name])
        if own > 0.1 and seen.mismatch[best] < own / 2:
            return [
                "The images look wrongly normalized: what the first batch norm remembers from training is missed by "
                f"{own:.2f}, and with {best} normalization by {seen.mismatch[best]:.2f}. Set teacher.mean and "
                "teacher.std to those of the teacher's training."
            ]
        return []
    if abs(seen.mean) > 1 or not 0.3 < seen.sd < 3:
        return [
            f"The images look wrongly normalized: the network sees a mean of {seen.mean:.2f} and an sd of "
            f"{seen.sd:.2f}, where about 0 and 1 is usual. Check teacher.mean and teacher.std."
        ]
    return []


def _about_geometry(geometry: Geometry, output: str, model: EmbeddingModel, sigma: float | None) -> list[str]:
    if geometry.rank < 3 or geometry.cosine > 0.99:
        return [
            "The teacher looks collapsed: it says nearly the same of all images. If it was good where it was trained, "
            "its weights or its preprocessing are not what they were; else there is nothing to transfer."
        ]
    complaints = []
    if geometry.still > geometry.width / 2:
        complaints.append(
            f"{geometry.still} of {geometry.width} dimensions never change: the teacher is half dead, or sees other "
            "images than it was trained on."
        )
    if sigma is not None and geometry.affinity > 0.5:
        other = "" if output != "features" or model.head is None else f"transfer output: {model.head.output_name}, or "
        complaints.append(
            f"At sigma {sigma:g} the Gaussian affinity tells every pair to be close (mean affinity "
            f"{geometry.affinity:.2f}): leave out affinity and sigma, since the standardized affinity is the same for "
            f"any scale; or {other}set task.sigma to about {geometry.median_distance / 2:.2g}, which treats the "
            "median pair as sigma 1 treats that of an embedding spread over the whole sphere."
        )
    return complaints


def _about_neighbors(teacher: float, pixels: float, count: int) -> list[str]:
    error = (max(pixels * (1 - pixels), 1 / count) / count) ** 0.5
    if teacher >= pixels - 2 * error:
        return []
    return [
        "Its neighbors are worse than those of raw pixels: on these images the teacher knows less than the images say. "
        "Check backbone, stem, image_size and normalization."
    ]


def _color(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
