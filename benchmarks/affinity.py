"""What a small student learns from a teacher by one loss or another, scored on images that nobody was trained on.

    python benchmarks/affinity.py --root FOLDER --teacher 'lite0={file: FILE.pth, backbone: tf_efficientnet_lite0,
        mean: [0.498, 0.498, 0.498], std: [0.502, 0.502, 0.502], image_size: 112}' \
        --task 'paper={kind: relaxed_contrastive, affinity: gaussian, sigma: 1.0}' --task 'pkt={kind: pkt}' \\
        --seeds 0 1 2

A teacher and a task are sections of a recipe, after the name that tables show. Every run sees the same views of the
same images, of which there are ``--versions``; so the teacher looks at them once, and its embeddings are kept in
``--cache``. The seed draws the student's weights and the order of the images. Runs that ``--results`` (a JSON line
each) has already are not made again. Images of ``cifar10`` and ``cifar100``: ``--images`` of the training split are
learned from, another 5,000 of it are held out; scores are kNN (20) and a linear probe that learn from 10,000 of the
first. With ``--species`` the data are a folder of classes: the first of its classes are learned from, those up to 50
held out, and the score is Recall@1 among the held-out images. Settings are chosen on held-out images; ``--test`` scores
the test split, with a folder the classes after the 50th, instead.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import TypeAdapter

from ssl_transfer import config  # noqa: F401  (completes the sections)
from ssl_transfer.context import keep_freed_memory
from ssl_transfer.data import Augment, Batch, Batches, Images, load_images
from ssl_transfer.data.subset import held_out_images, learned_images
from ssl_transfer.losses.precision import widen
from ssl_transfer.models import EmbeddingModel, Output
from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model
from ssl_transfer.probes import extract_features, knn_accuracy, linear_probe, neighbor_overlap, retrieval
from ssl_transfer.schedules import warmup_cosine
from ssl_transfer.tasks.sections.base import TaskInputs
from ssl_transfer.tasks.sections.transfer import Transfer, TransferTask
from ssl_transfer.teachers.loading import open_teacher
from ssl_transfer.teachers.section import Teacher
from ssl_transfer.training.optim import create_optimizer

HELD_OUT, PROBED = 5000, 10000
# What a run is, beside its teacher, its task and its seed.
SETTING = (
    *("data", "species", "student", "sees", "embedding", "pooling"),
    *("images", "versions", "batch_size", "per_class", "steps", "lr", "test"),
)


@dataclass(frozen=True)
class Data:
    """What is learned from, and the images whose features are scored."""

    learned: Images
    scored: Images
    retrieval: bool

    def scores(self, model: Any) -> dict[str, float]:
        """In per cent, of the features that ``model`` gives."""
        x, y = extract_features(model, self.scored.pixels), self.scored.labels
        if self.retrieval:
            return {"recall": 100 * retrieval(x, y, k=(1,)).recall[1]}
        train_x, train_y = extract_features(model, self.learned.pixels[:PROBED]), self.learned.labels[:PROBED]
        (knn,) = knn_accuracy(train_x, train_y, x, y, k=20).values()
        return {"knn": 100 * knn, "linear": 100 * linear_probe(train_x, train_y, x, y).accuracy}


def read(given: argparse.Namespace) -> Data:
    """The images of one data set."""
    if not given.species:
        train = load_images(given.data, given.root, split="train")
        scored = load_images(given.data, given.root, split="test") if given.test else held_out_images(train, HELD_OUT)
        return Data(learned_images(train, given.images, HELD_OUT), scored, retrieval=False)
    whole = {"image_size": given.size * 7 // 6, "train_classes": 50}
    splits = ["train", "test"] if given.test else ["train"]
    parts = [load_images("folder", given.root, split=split, **whole).middle(given.size) for split in splits]
    learned = parts[0].labels < given.species
    scored = parts[1] if given.test else parts[0].subset((~learned).nonzero()[:, 0])
    return Data(parts[0].subset(learned.nonzero()[:, 0]), scored, retrieval=True)


class Views:
    """``versions`` views of every image, made once."""

    def __init__(self, images: Images, versions: int):
        augment = Augment(images.pixels.shape[-1], crop_scale=(0.3, 1.0), flip=0.5)
        index = torch.arange(len(images))
        self.version = [
            torch.cat([augment(images.pixels[i], seed=0, epoch=v, index=i, view=0).half() for i in index.split(512)])
            for v in range(versions)
        ]

    def embedded(self, teacher: torch.nn.Module) -> torch.Tensor:
        """The teacher's embeddings of all of them: version, image, dimension."""
        return torch.stack([embedded(teacher, version) for version in self.version])


@torch.no_grad()
def embedded(teacher: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The teacher's embeddings of images in [0, 1] or of pixels."""
    parts = []
    for part in images.split(64):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(teacher(part.float() / (255 if part.dtype == torch.uint8 else 1)))
    return torch.cat([part.float() for part in parts]).half()


def named(text: str) -> tuple[str, dict]:
    """``name={a: section}``."""
    name, _, section = text.partition("=")
    return name, yaml.safe_load(section)


def opened(section: dict) -> EmbeddingModel:
    """The teacher of a section."""
    model, _ = open_teacher(Teacher.model_validate(section), None)
    return model.to(memory_format=torch.channels_last)


def section_of(task: dict, teacher: dict) -> Transfer:
    """The section of a task, with its teacher."""
    return TypeAdapter(TransferTask).validate_python({**task, "teacher": teacher})


def student(given: argparse.Namespace, images: Images, seed: int) -> EmbeddingModel:
    """The network before its first step."""
    torch.manual_seed(seed)
    head = HeadSpec("embedding", given.embedding) if given.embedding else None
    spec = ModelSpec(given.student, "default", 3, given.sees, images.mean, images.std, head=head, pooling=given.pooling)
    return build_model(spec).to(memory_format=torch.channels_last)


def train(
    given: argparse.Namespace, section: Transfer, data: Data, views: Views, taught: torch.Tensor, seed: int
) -> tuple[EmbeddingModel, float]:
    """A student after its steps, and the loss of the last tenth of them."""
    model = student(given, data.learned, seed)
    teachers = [opened(teacher.model_dump(exclude_none=True)) for teacher in section.teachers]
    torch.manual_seed(seed + 1)
    task = section.build(TaskInputs(model, teachers, data.learned, seed, given.steps, None))
    optimizer = create_optimizer(task, name="adamw", lr=given.lr, weight_decay=1e-4)
    batches = Batches(data.learned, [], seed=seed, batch_size=given.batch_size, per_class=given.per_class)
    losses = []
    model.train()
    for step in range(given.steps):
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, total_steps=given.steps, warmup_steps=given.steps // 12, base=given.lr)
        index = batches.index(step)
        version = step // batches.steps_per_epoch % given.versions
        shown = views.version[version][index].float().contiguous(memory_format=torch.channels_last)
        batch = Batch((shown,), index, data.learned.labels[index], step, version, (widen(taught[version][index]),))
        with torch.autocast("cpu", torch.bfloat16):
            loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    tail = losses[-max(1, given.steps // 10) :]
    return model.eval(), sum(tail) / len(tail)


def remembered(path: Path, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What is in the file, or is made and written there."""
    if not path.exists():
        torch.save(make(), path)
    return torch.load(path)


def runs(given: argparse.Namespace) -> Iterator[dict]:
    """What is not there yet."""
    data = read(given)
    views = Views(data.learned, given.versions)
    done = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    setting = {key: getattr(given, key) for key in SETTING}
    for name, source in map(named, given.teacher):
        teacher = Output(opened(source), source.get("output", "features")).eval()
        given.cache.mkdir(parents=True, exist_ok=True)
        kept = given.cache / f"{given.data}-{name}-{len(data.learned)}-{given.versions}"
        taught = remembered(kept.with_suffix(".pt"), lambda teacher=teacher: views.embedded(teacher))
        reference = remembered(
            kept.with_suffix(".test.pt" if given.test else ".held-out.pt"),
            lambda teacher=teacher: embedded(teacher, data.scored.pixels),
        ).float()
        for seed in given.seeds:
            for task, section in map(named, given.task):
                asked = {"teacher": name, "task": task, "seed": seed, **setting}
                if any(asked.items() <= row.items() for row in done):
                    continue
                start = time.process_time()
                if section["kind"] == "untrained":
                    model, loss = student(given, data.learned, seed).eval(), None
                elif section["kind"] == "itself":
                    model, loss = teacher, None
                else:
                    model, loss = train(given, section_of(section, source), data, views, taught, seed)
                features = getattr(model, "features", model)
                seconds = time.process_time() - start
                scores = data.scores(features)
                overlap = 100 * neighbor_overlap(extract_features(features, data.scored.pixels), reference)
                yield asked | {"section": section, "loss": loss, "seconds": seconds, "overlap": overlap} | scores


def main() -> None:
    """Make the runs that are asked for and append them to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder of the data")
    parser.add_argument("--data", default="cifar10", help="cifar10, cifar100 or, with --species, any name")
    parser.add_argument("--species", type=int, help="the data are a folder of classes; learn from this number of them")
    parser.add_argument("--size", type=int, default=48, help="of views of a folder's images")
    parser.add_argument("--teacher", action="append", required=True, help="name={section}")
    parser.add_argument("--task", action="append", required=True, help="name={section}, kind also untrained, itself")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--student", default="cifar_resnet8")
    parser.add_argument("--sees", type=int, default=32, help="the size that images are brought to for the student")
    parser.add_argument("--embedding", type=int, help="the width of a linear layer behind the student's features")
    parser.add_argument("--pooling")
    parser.add_argument("--images", type=int, default=20000)
    parser.add_argument("--versions", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--steps", type=int, default=312)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path("runs/affinity"))
    parser.add_argument("--results", type=Path, default=Path("runs/affinity/results.jsonl"))
    given = parser.parse_args()
    keep_freed_memory()
    for row in runs(given):
        with given.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print({key: value for key, value in row.items() if key not in ("section", *SETTING)}, flush=True)


if __name__ == "__main__":
    main()
