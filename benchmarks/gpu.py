r"""Everything that a GPU has to be asked, in the time there is: tests, losses, views, probes, steps, then CIFAR-10.

    python benchmarks/gpu.py --minutes 13 --out /tmp/gpu --data FOLDER-WITH-CIFAR-10
    python benchmarks/gpu.py --tiny --device cpu --minutes 2 --out /tmp/tiny          # from start to end, any machine

Parts run in order of value, each in its share of the time, and each writes OUT/PART.json and into OUT/summary.md when
it ends: a program that is cut loses one part. A part that fails writes its traceback, and the next one begins.

tests    the tests marked gpu
losses   value and gradient of every relational loss beside dense PyTorch; NT-Xent beside lightly's
views    views per second of the presets, by kernels one by one and compiled
probes   kNN, linear probe, few labels, retrieval and clustering of as many features as CIFAR-10 has images
steps    SimCLR steps of a ResNet-18: on one batch that never changes, of ours, ours compiled, and of lightly's script
compiled the same steps on one batch by plain networks, by compiled ones, and recorded as CUDA graphs: time, and losses
simclr   CIFAR-10: a SimCLR ResNet-18, for as many epochs as fit into half of the rest, scored
transfer its transfer into a small student, for as many epochs as fit, scored

Needs torch, torchvision, timm, numpy, scikit-learn and this project's other dependencies; nothing is downloaded.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import recording
import torch
from torch import Tensor

ROOT = Path(__file__).parent.parent
# Shares of the whole time; what is left is for simclr and transfer.
SHARES = {"tests": 2 / 13, "losses": 0.7 / 13, "views": 0.7 / 13, "probes": 1 / 13, "steps": 3 / 13, "compiled": 1 / 13}
Result = dict[str, Any]


class Clock:
    """How much of the time is left."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()


def timed(work: Callable[[], object], seconds: float, device: str) -> Result:
    """Median milliseconds of a call, of at least three, in about this many seconds; warmed up by one call."""
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    clock, found = Clock(seconds), []
    memory = recording.extra_memory(work, device) if device == "cuda" else None
    if memory is None:
        work()
    while len(found) < 3 or (clock.left > 0 and len(found) < 200):
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        found.append(1000 * (time.perf_counter() - start))
    return dict(ms=median(found), lowest=min(found), highest=max(found), calls=len(found), memory_mib=memory)


def tests(given: argparse.Namespace, clock: Clock) -> Result:
    """The tests marked gpu, in a process of their own."""
    marked = [file for file in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in file.read_text()]
    marked.sort(key=lambda file: (file.stem == "test_compiled", file))  # what takes longest goes last
    which = ["tests/data/test_counter.py"] if given.tiny else [str(file) for file in marked]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *which]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=clock.left)
        said, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        said, code = f"{(error.stdout or b'').decode()}\ncut off by the time that this part has", -1
    lines = said.strip().splitlines()
    return dict(exit_code=code, summary=lines[-1], said=lines[-200:])


def losses(given: argparse.Namespace, clock: Clock) -> Result:
    """Every relational loss at some sizes of the batch."""
    from lightly.loss import NTXentLoss
    from losses import dense_twin, inputs

    from ssl_transfer import losses as ours

    names = ("relaxed_contrastive", "pkt", "dark_rank", "similarity_preserving", "correlation_congruence", "regression")
    candidates: dict[str, Callable[[Tensor, Tensor], Tensor]] = {name: getattr(ours, name) for name in names}
    candidates |= {"rkd_distance": ours.rkd_distance, "relaxed_contrastive, dense": dense_twin}
    candidates |= {"nt_xent": ours.nt_xent, "nt_xent, lightly": NTXentLoss()}
    sizes = [64, 128] if given.tiny else [512, 1024, 4096, 16384]
    found: Result = {}
    each = clock.left / (len(sizes) * len(candidates))
    for n in sizes:
        student, teacher = inputs(n, 16 if given.tiny else 128, given.device)
        for name, loss in candidates.items():
            if n > 4096 and ("dense" in name or "lightly" in name):
                continue  # several gigabytes

            def step(loss: Callable = loss, student: Tensor = student, teacher: Tensor = teacher) -> None:
                torch.autograd.grad(loss(student, teacher), student)

            found[f"{name}, n = {n}"] = timed(step, each, given.device)
    return found


def views(given: argparse.Namespace, clock: Clock) -> Result:
    """Views per second of the presets."""
    from data import tiles

    from ssl_transfer.data import PRESETS, Augment, Batches, Images

    presets = ["simclr"] if given.tiny else ["simclr", "moco_v2", "byol"]
    sizes = [32] if given.tiny else [32, 96]
    kinds = [False] if given.device == "cpu" else [False, True]
    found: Result = {}
    each = clock.left / (len(presets) * len(sizes) * len(kinds))
    for size in sizes:
        images = Images(tiles(size), None, None, "tiles", "train", (0.5,) * 3, (0.25,) * 3).to(given.device)
        batch_size = 64 if given.tiny else 512
        for preset in presets:
            for compiled in kinds:
                augments = [Augment(size, **view, compiled=compiled) for view in PRESETS[preset]]
                batches = Batches(images, augments, seed=0, batch_size=batch_size)
                result = timed(lambda batches=batches: batches.batch(0), each, given.device)
                result["views_per_second"] = 2000 * batch_size / result["ms"]
                found[f"{preset}, {size} px{', compiled' if compiled else ''}"] = result
    return found


def probes(given: argparse.Namespace, clock: Clock) -> Result:
    """Every probe of features for which there is time, the first one always, once each, on clusters that overlap."""
    from ssl_transfer import probes as ours

    train, test, width = (400, 100, 16) if given.tiny else (50_000, 10_000, 512)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (train + test,), generator=generator)
    features = torch.randn(train + test, width, generator=generator)
    features += 3 / width**0.5 * torch.randn(10, width, generator=generator)[labels]
    features, labels = features.to(given.device), labels.to(given.device)
    bank = features[:train], labels[:train]
    asked = features[train:], labels[train:]
    work: dict[str, Callable[[], Any]] = {
        "knn": lambda: ours.knn_accuracy(*bank, *asked, k=[20]),
        "linear_probe": lambda: ours.linear_probe(*bank, *asked),
        "few_shot": lambda: ours.few_shot(*bank, *asked, labels_per_class=[10]),
        "retrieval": lambda: ours.retrieval(*asked),
        "clustering": lambda: ours.clustering(*asked, restarts=1),
    }
    found: Result = {}
    for name, probe in work.items():
        if found and clock.left < 0:
            found[name] = "no time was left"
            continue
        start = time.perf_counter()
        value = probe()
        found[name] = dict(seconds=time.perf_counter() - start, value=str(value))
    return found


def steps(given: argparse.Namespace, clock: Clock) -> Result:
    """Images per second of SimCLR steps, turn about until the time is over."""
    import train
    from data import tiles

    settings = _sizes(given)
    makers = [train.constant, train.ours, *([] if given.tiny else [train.ours_compiled]), train.lightly]
    pixels = tiles(train.SIZE)[:64] if given.tiny else tiles(train.SIZE)
    found: dict[str, list[float]] = {}
    with contextlib.redirect_stdout(None):
        candidates = {maker.__name__: maker(settings, pixels) for maker in makers}
        recording.turn_about(candidates, 0)
        while not found or clock.left > 0:
            for name, work in candidates.items():
                found.setdefault(name, []).append(settings.steps * settings.batch_size / work())
    rows = {}
    for name, rates in found.items():
        ratios = [rate / ceiling for rate, ceiling in zip(rates, found["constant"], strict=True)]
        rows[name] = dict(images_per_second=median(rates), of_ceiling=median(ratios), rounds=len(rates))
    return rows | {"settings": vars(settings)}


def _sizes(given: argparse.Namespace) -> argparse.Namespace:
    return argparse.Namespace(
        device=given.device,
        backbone="cifar_resnet8" if given.tiny else "resnet18",
        stem="default" if given.tiny else "cifar",
        batch_size=32 if given.tiny else 512,
        precision="full" if given.tiny else "bf16",
        workers=0 if given.tiny else 8,
        steps=2 if given.tiny else 20,
    )


def compiled(given: argparse.Namespace, clock: Clock) -> Result:
    """Milliseconds of a step on one batch, and how far its loss is from the plain network's over the first steps.

    CUDA graphs replay what they have recorded. Before a recipe may ask for them it has to be seen here that they give
    the numbers of the plain network: the part fails where a loss is a fiftieth off, which is ten roundings of bfloat16.
    """
    import train

    from ssl_transfer.data import Batch
    from ssl_transfer.models.compiled import compile_networks
    from ssl_transfer.tasks.pretrain import SimCLR
    from ssl_transfer.training.optim import create_optimizer

    ways: dict[str, dict[str, str] | None] = {"plain": None, "compiled": {}, "CUDA graphs": {"mode": "reduce-overhead"}}
    if given.tiny:
        ways = {"plain": None, "traced": {"backend": "aot_eager"}}
    settings, found, losses = _sizes(given), {}, {}
    shape = (2, settings.batch_size, 3, train.SIZE, train.SIZE)
    views = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(given.device)
    for name, options in ways.items():
        task = SimCLR(train.network(settings).to(memory_format=torch.channels_last), temperature=0.5).train()
        optimizer = create_optimizer(task, name="sgd", lr=0.06, weight_decay=5e-4)
        if options is not None:
            compile_networks(task, **options)

        def step(task: torch.nn.Module = task, optimizer: torch.optim.Optimizer = optimizer) -> Tensor:
            with train.autocast(settings):
                loss = task(Batch((views[0], views[1]), torch.arange(0), None, 0))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return loss.detach().clone()

        start = time.perf_counter()
        losses[name] = torch.stack([step() for _ in range(5)]).cpu()
        found[name] = {"first_seconds": time.perf_counter() - start}
        found[name] |= timed(step, clock.left / (2 * len(ways)), given.device)
        found[name]["loss_differs_by"] = ((losses[name] - losses["plain"]) / losses["plain"]).abs().max().item()
    wrong = [name for name in found if not found[name]["loss_differs_by"] < 0.02]
    if wrong:
        raise AssertionError(f"{', '.join(wrong)} gave other losses than the plain network: {found}")
    return found


def trained(given: argparse.Namespace, name: str, share: float, clock: Clock, *more: str) -> Result:
    """Run a recipe of CIFAR-10, or of the digits where all is tiny, for as long as ``share`` of the time allows."""
    from ssl_transfer import config, recipe

    file = ROOT / "recipes" / ("digits" if given.tiny else "cifar10") / f"{name}.yaml"
    where = [f"train.runs={given.out / 'runs'}", "train.log_every=10", *more]
    if not given.tiny:
        where += [f"data.root={given.data}", "data.download=false"]
    seconds, start = share * clock.left, time.monotonic()
    if given.tiny:
        where += ["score=[{kind: knn, k: [20]}]", "data.batch_size=64"]
    probe = [f"name={name}-rate", f"train.steps={11 if given.tiny else 40}", *where, "score=[]"]
    folder = recipe.run(config.load(file, probe))
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    epoch = last["images_per_second"] / (1442 if given.tiny else 50_000)  # epochs a second
    epochs = max(1, int(0.9 * (seconds - (time.monotonic() - start)) * epoch))
    epochs = min(epochs, 2) if given.tiny else epochs
    warmup = min(10.0, epochs / 10)
    run = [f"name={name}", f"train.epochs={epochs}", f"train.checkpoint_every={epochs}"]
    folder = recipe.run(config.load(file, [*run, f"optim.warmup_epochs={warmup}", *where]))
    info = json.loads((folder / "run.json").read_text())
    scores = json.loads((folder / "scores.json").read_text())
    return dict(
        epochs=epochs,
        images_per_second_at_first=last["images_per_second"],
        seconds=info["seconds"],
        seconds_with_scores=time.monotonic() - start,
        recipe=(folder / "recipe.yaml").read_text(),
        scores=scores,
    )


def simclr(given: argparse.Namespace, clock: Clock) -> Result:
    """A SimCLR teacher."""
    return trained(given, "simclr", 0.5, clock)


def transfer(given: argparse.Namespace, clock: Clock) -> Result:
    """The teacher's transfer into a small student."""
    folder = given.out / "runs" / "simclr"
    teacher = f"task.teacher={{checkpoint: {json.dumps(str(folder))}}}"
    return trained(given, "transfer", 0.7, clock, teacher)


PARTS = [tests, losses, views, probes, steps, compiled, simclr, transfer]


def summary(name: str, result: Result) -> str:
    """A line, or a table, for a person."""
    if "problem" in result:
        return f"{name}: FAILED: {result['problem'].strip().splitlines()[-1]}"
    if name == "tests":
        return f"tests: {result['summary']}"
    if "scores" in result:
        return f"{name}: {result['epochs']} epochs in {result['seconds']:.0f} s; scores in {name}.json"
    lines = [f"{name}:"]
    for key, row in result.items():
        if isinstance(row, dict) and key != "settings":
            numbers = (f"{what} {value:,.4g}" for what, value in row.items() if isinstance(value, int | float))
            lines.append(f"  {key}: {', '.join(numbers)}")
    return "\n".join(lines)


def main() -> None:
    """Run the parts, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--data", type=Path, help="folder with cifar-10-batches-py")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="sizes to try the program itself with")
    parser.add_argument("--parts", nargs="+", default=[part.__name__ for part in PARTS], metavar="PART")
    given = parser.parse_args()
    unknown = set(given.parts) - {part.__name__ for part in PARTS}
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose of {[part.__name__ for part in PARTS]}")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU: try the program with --tiny --device cpu")
    if given.data is None and not given.tiny and {"simclr", "transfer"} & set(given.parts):
        parser.error("simclr and transfer need --data, the folder in which cifar-10-batches-py is; or leave them out")

    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    where = dict(
        machine=recording.machine(given.device),
        torch=torch.__version__,
        python=sys.version.split()[0],
        date=datetime.now(UTC).date().isoformat(),
        tiny=given.tiny,
    )
    whole = Clock(60 * given.minutes)
    (given.out / "summary.md").write_text(", ".join(f"{key} {value}" for key, value in where.items()) + "\n")
    for part in PARTS:
        name = part.__name__
        if name not in given.parts:
            continue
        start = time.monotonic()
        clock = Clock(min(60 * given.minutes * SHARES[name], whole.left)) if name in SHARES else whole
        try:
            result = part(given, clock)
        except Exception:
            result = {"problem": traceback.format_exc()}
        report = where | {"part_seconds": time.monotonic() - start, "result": result}
        (given.out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
        with (given.out / "summary.md").open("a") as file:
            file.write(f"\n{summary(name, result)}   ({report['part_seconds']:.0f} s)\n")
        print(f"{summary(name, result)}   ({report['part_seconds']:.0f} s, {whole.left:.0f} s left)", flush=True)


if __name__ == "__main__":
    main()
