"""What a step of every task asks of a GPU: launches, waits of the host, operations on the host, collectives.

    python -m tests.simulated_cuda.steps                                # one GPU, all tasks
    python -m tests.simulated_cuda.steps --processes 2 --only simclr    # two, through accelerate and DDP
    python -m tests.simulated_cuda.steps --only simclr --backbone resnet18

Whole runs on the pretended GPU (device.py): each takes a few steps on 16 tiny images of three classes, in bf16, and
the last step but one is counted, from one seeding of a step to the next. In it nothing is logged or saved. Launches are
shared out by the part of the step: making the batch, forward and loss, the rest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

STEPS = 4
TEACHER = {"seed": {"queue_size": 64}, "crd": {"negatives": 16}}
# Task sections, and what else the recipe has.
TASKS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "simclr": ({"kind": "simclr"}, {}),
    "simclr adamw ema clip": (
        {"kind": "simclr"},
        {"optim": {"name": "adamw", "lr": 0.01}, "train": {"ema": 0.99, "clip_norm": 1.0}},
    ),
    "simclr lars": ({"kind": "simclr"}, {"optim": {"name": "lars", "lr": 0.01}}),
    "simclr in parts": ({"kind": "simclr"}, {"train": {"micro_batch_size": 16}}),
    "moco": ({"kind": "moco", "queue_size": 64}, {}),
    "moco symmetric": ({"kind": "moco", "queue_size": 64, "symmetric": True}, {}),
    "moco_v3": ({"kind": "moco_v3", "hidden_dim": 32, "projection_dim": 16}, {}),
    "classify": ({"kind": "classify"}, {}),
    "classify mixup cutmix": ({"kind": "classify", "mixup": 0.2, "cutmix": 1.0}, {}),
    "relaxed_contrastive contextual": (
        {"kind": "relaxed_contrastive", "teacher": {}, "affinity": "contextual", "neighbors": 4},
        {},
    ),
    "relaxed_contrastive beside labels": ({"kind": "relaxed_contrastive", "teacher": {}, "labels": True}, {}),
    "relaxed_contrastive fixed views": (
        {"kind": "relaxed_contrastive", "teacher": {}},
        {"data": {"fixed_views": 2}},
    ),
    **{
        kind: ({"kind": kind, "teacher": {}, **TEACHER.get(kind, {})}, {})
        for kind in (
            *("relaxed_contrastive", "relaxed_multi_similarity", "rkd", "pkt", "dark_rank", "similarity_preserving"),
            *("correlation_congruence", "regression", "seed", "fitnet", "attention_transfer", "vid", "crd"),
            "soft_targets",
        )
    },
    **{
        f"metric {loss}": ({"kind": "metric", "loss": loss}, {"data": {"per_class": 4, "views": 1}})
        for loss in ("proxy_anchor", "multi_similarity", "contrastive", "triplet", "normalized_softmax")
    },
    "streamed": ({"kind": "simclr"}, {"data": {"resident": False, "workers": 0}}),
}


def recipe_of(name: str, folder: Path, backbone: str) -> dict[str, Any]:
    task, more = TASKS[name]
    if "teacher" in task:
        task = task | {"teacher": {"checkpoint": str(folder / "teacher")}}
    data = {"dataset": "folder", "root": str(folder / "images"), "batch_size": 16, "augment": "simclr"}
    data |= {"image_size": 32, "train": "train", "test": None} | more.get("data", {})
    return {
        "name": name.replace(" ", "-"),
        "seed": 0,
        "data": data,
        "model": {"backbone": backbone} | ({"stem": "cifar"} if backbone == "resnet18" else {}),
        "task": task,
        "optim": more.get("optim", {"name": "sgd", "lr": 0.01}),
        "train": {"epochs": 2, "log_every": 100, "runs": str(folder / "runs"), **more.get("train", {})},
        "score": [],
    }


def prepare(folder: Path) -> None:
    """Sixteen images for each of two epochs' batches, and a teacher that nobody trained."""
    import torch
    from torchvision.transforms.v2.functional import to_pil_image

    from ssl_transfer.models.checkpoint import HeadSpec, ModelSpec, build_model, save_model

    generator = torch.Generator().manual_seed(0)
    for number in range(32):
        place = folder / "images" / "train" / "abcd"[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        to_pil_image(torch.randint(256, (3, 32, 32), generator=generator, dtype=torch.uint8)).save(
            place / f"{number}.png"
        )
    spec = ModelSpec("cifar_resnet8", "default", 3, 32, (0.5,) * 3, (0.25,) * 3, head=HeadSpec("embedding", 16))
    save_model(folder / "teacher", build_model(spec), spec)


def walk(names: list[str], folder: Path, backbone: str) -> dict[str, dict[str, Any]]:
    """The counts of one step of each task."""
    from tests.simulated_cuda.device import pretended_gpu

    found: dict[str, dict[str, Any]] = {}
    with pretended_gpu() as counts:
        from ssl_transfer import config, recipe
        from ssl_transfer.data import Batches
        from ssl_transfer.training import engine

        seeding, making, backward = engine._seed_step, Batches.batch, engine.Accelerator.backward
        taken: dict[str, Any] = {}

        def counted() -> dict[str, int]:
            return {name: counter.total() for name, counter in vars(counts).items() if name != "without_kernel"}

        def seed_step(seed: int, step: int, rank: int) -> None:
            if step == STEPS - 2:
                counts.clear()
            elif step == STEPS - 1:
                taken.update(
                    counted(),
                    where=dict(counts.waits),
                    gathered=dict(counts.collectives),
                    heaviest=dict(counts.launches.most_common(8)),
                )
            seeding(seed, step, rank)

        def batch(self: Batches, step: int) -> Any:
            before = counted()
            result = making(self, step)
            if step == STEPS - 2:
                after = counted()
                taken.update(views=after["launches"] - before["launches"], views_on_host=after["on_host"])
            return result

        def going_backward(self: Any, loss: Any) -> None:
            taken["before_backward"] = counts.launches.total() if "launches" not in taken else taken["before_backward"]
            backward(self, loss)

        engine._seed_step, Batches.batch, engine.Accelerator.backward = seed_step, batch, going_backward
        for name in names:
            taken.clear()
            file = folder / f"{name.replace(' ', '-')}.yaml"
            file.write_text(json.dumps(recipe_of(name, folder, backbone)))
            without = counts.without_kernel.copy()
            try:
                recipe.run(config.load(file))
                problem = None
            except Exception:
                problem = traceback.format_exc()
            missing = sorted(counts.without_kernel - without)
            found[name] = {"problem": problem, "without_kernel": missing, **taken}
    return found


def run(names: list[str], folder: Path, processes: int, backbone: str) -> dict[str, dict[str, Any]]:
    """The counts of the main one of ``processes`` processes that are started for it."""
    from tests.processes import find_free_port

    prepare(folder)
    port, result = find_free_port(), folder / "found.json"
    arguments = [sys.executable, "-m", "tests.simulated_cuda.steps", "--inside", str(folder), "--backbone", backbone]
    started = []
    for rank in range(processes):
        several = dict(WORLD_SIZE=processes, LOCAL_WORLD_SIZE=processes, RANK=rank, LOCAL_RANK=rank)
        several |= dict(MASTER_ADDR="localhost", MASTER_PORT=port)
        extra = {key: str(value) for key, value in several.items()} if processes > 1 else {}
        environment = {**os.environ, **extra, "OMP_NUM_THREADS": "1"}
        started.append(subprocess.Popen([*arguments, "--only", *names], env=environment))
    codes = [process.wait() for process in started]
    assert not any(codes), codes
    return json.loads(result.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--backbone", default="cifar_resnet8")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside is not None:
        found = walk(given.only, given.inside, given.backbone)
        if os.environ.get("RANK", "0") == "0":
            (given.inside / "found.json").write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = run(given.only, Path(folder), given.processes, given.backbone)
    print(f"{'task':34s} {'launches':>8s} {'of views':>8s} {'waits':>6s} {'on host':>8s} {'collectives':>11s}")
    for name, row in found.items():
        if row["problem"]:
            print(f"{name:34s} {row['problem'].strip().splitlines()[-1]}")
            continue
        print(
            f"{name:34s} {row['launches']:8d} {row['views']:8d} {row['waits']:6d} {row['on_host']:8d} "
            f"{row['collectives']:11d}"
        )
        for line, count in (row["where"] | dict.fromkeys(row["without_kernel"], 0)).items():
            print(f"      {count or 'no kernel'} x {line}")


if __name__ == "__main__":
    main()
