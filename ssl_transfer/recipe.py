"""From a recipe to a scored student: the one place that sees both the settings and the tensors."""

import ctypes
import os
import platform
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list
from rich.console import Console
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from ssl_transfer import __version__, config, runs
from ssl_transfer.checkpoint import HeadSpec, ModelSpec, build_model, load_model, save_model
from ssl_transfer.data import Augment, Batches, Images, load_images
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.engine import fit
from ssl_transfer.errors import UserError, user_mistakes
from ssl_transfer.evaluation import compute_features
from ssl_transfer.models import AveragedModel, EmbeddingModel
from ssl_transfer.optim import create_optimizer
from ssl_transfer.schedules import constant, warmup_cosine
from ssl_transfer.scoring import Score, print_scores, read_scores, score_features, write_scores
from ssl_transfer.task_building import build_task

Stop = Callable[[int], bool]
M = TypeVar("M", bound=nn.Module)


def run(recipe: config.Recipe, *, stop: Stop | None = None) -> Path:
    """Train what the recipe describes unless that is done, score it unless that is done, and return its folder.

    Raises:
        UserError: something a person can mend, in one sentence.
    """
    context = Context.start(recipe)
    with _stop_on_signal() if stop is None else nullcontext(stop) as stop:
        folder = train(recipe, context, stop)
    if recipe.score:
        _score_once(recipe, folder, context)
    context.say(f"run folder: {folder}")
    return folder


@dataclass(frozen=True)
class Context:
    """Where a recipe runs: the processes, their device, their arithmetic, and the console of the main one."""

    accelerator: Accelerator
    precision: torch.dtype
    layout: torch.memory_format
    console: Console | None

    @classmethod
    def start(cls, recipe: config.Recipe) -> "Context":
        """Set up processes, threads and arithmetic for ``recipe``."""
        # accelerate knows only the older name of this option, about which newer versions of torch warn.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
        tracker = recipe.train.tracker
        if tracker is not None and find_spec(tracker) is None:
            raise UserError(f"train.tracker is {tracker}, which is not installed: pip install {tracker}")
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            log_with=tracker,
            project_dir=recipe.train.runs,
            # Batch-norm statistics are equal on all processes (SyncBatchNorm), so there is nothing to broadcast.
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        if accelerator.device.type == "cpu":
            # `accelerate launch` without a configuration sets OMP_NUM_THREADS=1, a small part of the machine.
            processes_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            torch.set_num_threads(recipe.train.cpu_threads or max(1, _cores() // processes_here))
            _keep_freed_memory()
        exact = recipe.train.precision == "full"
        for backend in (torch.backends.cuda.matmul, torch.backends.cudnn.conv):  # type: ignore[attr-defined]
            backend.fp32_precision = "ieee" if exact else "tf32"
        torch.backends.cudnn.benchmark = True
        return cls(
            accelerator,
            _precision(recipe.train.precision, accelerator.device),
            # Convolutions are fastest in channels_last. But there torch's batch norm on the CPU, float32, is wrong in
            # the 6th digit and not in the 8th, which shows as a dependence on the number of processes.
            torch.contiguous_format if exact else torch.channels_last,
            Console() if accelerator.is_main_process else None,
        )

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def precision_name(self) -> str:
        """The type that matrices are multiplied in."""
        return str(self.precision).removeprefix("torch.")

    def autocast(self) -> torch.autocast:
        """Multiply matrices in the precision of this run."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def place(self, module: M) -> M:
        """``module`` on the device, in the memory layout of this run."""
        return module.to(self.device).to(memory_format=self.layout)

    def say(self, text: str) -> None:
        """One line from the main process."""
        if self.console is not None:
            self.console.print(text, highlight=False, soft_wrap=True)

    def on_main(self, do: Callable[[], Any]) -> Any:
        """What ``do`` returns or refuses on the main process, on every process."""
        outcome: list[Any] = [None, None]
        if self.accelerator.is_main_process:
            try:
                outcome[0] = do()
            except UserError as error:
                outcome[1] = str(error)
        broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise UserError(outcome[1])
        return outcome[0]


def train(recipe: config.Recipe, context: Context, stop: Stop) -> Path:
    """Bring the recipe's training to its end: from the start, from where it stopped, or not at all if it is done."""
    folder, notice = context.on_main(lambda: runs.claim(recipe))
    if notice:
        context.say(notice)
    info = context.on_main(lambda: runs.read_info(folder))
    if info.finished:
        context.say(f"{folder} is trained ({info.steps:,} steps)")
        return folder

    accelerator, device = context.accelerator, context.device
    with user_mistakes():  # the student first: a mistake in it should not wait for hours of teacher
        images = _images(recipe, "train", context)
        batches = Batches(
            images,
            [Augment(images.pixels.shape[-1], **view) for view in recipe.data.augment.views(recipe.data.views)],
            seed=recipe.seed,
            batch_size=recipe.data.batch_size,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        spec = model_spec(recipe, images)
        model = context.place(untrained(recipe, spec))
    teacher = _teacher(recipe, images, context, stop)
    with user_mistakes():
        task = context.place(build_task(recipe, model, teacher, images))
    if accelerator.num_processes > 1 and recipe.train.sync_batch_norm:
        synchronize_batch_norm(model)
    if recipe.train.compile:
        model.backbone.network.compile()
    momentum = recipe.train.ema
    average = AveragedModel(model) if momentum is not None else None
    total_steps = recipe.train.steps or recipe.train.epochs * batches.steps_per_epoch

    info = replace(
        info,
        total_steps=total_steps,
        processes=accelerator.num_processes,
        device=device_name(device),
        precision=context.precision_name,
        versions=_versions(),
    )
    context.say(
        f"{recipe.name}: {recipe.task.kind}, {recipe.model.backbone}, {total_steps:,} steps of "
        f"{recipe.data.batch_size} images on {info.processes} x {info.device} in {info.precision}; run folder {folder}"
    )
    if recipe.train.tracker is not None:
        accelerator.init_trackers(recipe.name, config={"recipe": config.dump(recipe)})
    with user_mistakes():
        outcome = fit(
            task,
            batches.batch,
            create_optimizer(
                task,
                name=recipe.optim.name,
                lr=recipe.optim.lr,
                weight_decay=recipe.optim.weight_decay,
                momentum=recipe.optim.momentum,
            ),
            accelerator=accelerator,
            folder=folder,
            title=recipe.name,
            seed=recipe.seed,
            batch_size=recipe.data.batch_size,
            steps_per_epoch=batches.steps_per_epoch,
            total_steps=total_steps,
            learning_rate=learning_rate(recipe, batches.steps_per_epoch),
            autocast=context.autocast,
            clip_norm=recipe.train.clip_norm,
            checkpoint_every=recipe.train.checkpoint_every * batches.steps_per_epoch,
            log_every=recipe.train.log_every,
            after_step=[partial(_follow, average, model, momentum)] if average and momentum else (),
            also_saved={"average": average} if average else {},
            on_save=lambda steps, seconds: runs.write_info(folder, replace(info, steps=steps, seconds=seconds)),
            stop=stop,
            console=context.console,
        )
    if accelerator.is_main_process:
        save_model(folder, average.module if average else model, spec)
        runs.write_info(folder, replace(info, finished=True, **asdict(outcome)))
        (folder / "state" / "state.pt").unlink(missing_ok=True)  # the finished weights are model.safetensors
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    return folder


def rescore(recipe: config.Recipe, folder: Path, context: Context | None = None) -> None:
    """Score teacher, student, untrained student and raw pixels by the recipe's probes; write and print the scores."""
    context = context or Context.start(recipe)
    with user_mistakes():
        splits = [_images(recipe, split, context) for split in ("train", "test")]
        scores: list[Score] = []
        for name, model in _scored_models(recipe, folder, splits[0], context).items():
            features = [compute_features(model, images, autocast=context.autocast) for images in splits]
            if context.accelerator.is_main_process:
                protocol = {"layer": "pixels" if model is None else "features", "precision": context.precision_name}
                train_split, test_split = zip(features, map(_labels, splits), strict=True)
                scores += score_features(
                    name, train_split, test_split, recipe.score, seed=recipe.seed, protocol=protocol
                )
    if context.console is not None:
        about = {
            "asked": _asked(recipe),
            "dataset": recipe.data.dataset,
            "fingerprints": {images.split: images.fingerprint for images in splits},
            "identity": config.identity_hash(recipe),
            "seed": recipe.seed,
            "device": device_name(context.device),
            "versions": _versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_scores(folder / "scores.json", scores, about)
        print_scores(scores, _title(recipe), context.console)
    context.accelerator.wait_for_everyone()


def leave() -> None:
    """Leave the group of processes, if there is one, at the end of a program."""
    PartialState().destroy_process_group()


def model_spec(recipe: config.Recipe, images: Images) -> ModelSpec:
    """What the recipe's model is, for images like ``images``."""
    mean, std = images.mean, images.std
    pretrained = get_pretrained_cfg(recipe.model.backbone) if recipe.model.pretrained else None
    if pretrained is not None and len(pretrained.mean) == len(mean):
        mean, std = pretrained.mean, pretrained.std
    head = None
    if isinstance(recipe.task, config.SimCLR):
        head = HeadSpec("projection", recipe.task.projection_dim, recipe.task.hidden_dim)
    elif recipe.model.embedding_dim is not None:
        head = HeadSpec("embedding", recipe.model.embedding_dim)
    return ModelSpec(
        backbone=recipe.model.backbone,
        stem=recipe.model.stem,
        in_chans=images.pixels.shape[1],
        image_size=images.pixels.shape[-1],
        mean=recipe.model.mean or mean,
        std=recipe.model.std or std,
        drop_path=recipe.model.drop_path,
        head=head,
    )


def untrained(recipe: config.Recipe, spec: ModelSpec) -> EmbeddingModel:
    """The recipe's model with the weights it starts from."""
    torch.manual_seed(recipe.seed)
    return build_model(spec, pretrained=recipe.model.pretrained)


def learning_rate(recipe: config.Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate as a function of the step."""
    optim = recipe.optim
    if optim.schedule == "constant":
        return partial(constant, base=optim.lr)
    return partial(
        warmup_cosine,
        total_steps=recipe.train.epochs * steps_per_epoch,
        warmup_steps=round(optim.warmup_epochs * steps_per_epoch),
        base=optim.lr,
        final=optim.final_lr,
    )


def device_name(device: torch.device) -> str:
    """What a person calls the device: the GPU's name, or the processor's kind and the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _teacher_of(recipe: config.Recipe) -> config.Teacher | None:
    return getattr(recipe.task, "teacher", None)


def _teacher(recipe: config.Recipe, images: Images, context: Context, stop: Stop) -> EmbeddingModel | None:
    """The task's teacher, trained first if it is a recipe that has not been run to its end."""
    teacher = _teacher_of(recipe)
    if teacher is None:
        return None
    if teacher.recipe is not None:
        train(teacher.recipe, context, stop)
    with user_mistakes():
        return _load_teacher(recipe, images, context)


def _load_teacher(recipe: config.Recipe, images: Images, context: Context) -> EmbeddingModel:
    teacher = _teacher_of(recipe)
    assert teacher is not None
    if teacher.timm is not None:
        named = recipe.model.model_copy(
            update={"backbone": teacher.timm, "pretrained": True, "stem": "default", "embedding_dim": None}
        )
        spec = model_spec(recipe.model_copy(update={"model": named}), images)
        return build_model(spec, pretrained=True).eval()
    if teacher.checkpoint is not None:
        return load_model(Path(teacher.checkpoint))[0]
    made_by = teacher.recipe
    assert made_by is not None
    return load_model(context.on_main(lambda: runs.folder_of(made_by))[0])[0]


def _teacher_name(teacher: config.Teacher) -> str:
    if teacher.recipe is not None:
        return teacher.recipe.model.backbone
    return teacher.timm or Path(teacher.checkpoint or "").name


def _images(recipe: config.Recipe, split: Literal["train", "test"], context: Context) -> Images:
    data = recipe.data
    with context.accelerator.main_process_first():  # one process downloads, the others find the files
        images = load_images(data.dataset, Path(data.root), split=split, download=data.download)
    return images.to(context.device)


def _labels(images: Images) -> Tensor:
    if images.labels is None:
        raise ValueError(f"{images.name} {images.split} has no labels to score with; use score: []")
    return images.labels


def _follow(average: AveragedModel, model: nn.Module, momentum: float, step: int) -> None:
    average.update(model, momentum=momentum)


def _score_once(recipe: config.Recipe, folder: Path, context: Context) -> None:
    """Score the run unless the same scores stand in its folder already; then print those."""
    known = context.on_main(lambda: read_scores(folder / "scores.json", asked=_asked(recipe)))
    if known is None:
        rescore(recipe, folder, context)
    elif context.console is not None:
        print_scores(known, _title(recipe), context.console)


def _asked(recipe: config.Recipe) -> list[dict[str, Any]]:
    return [kind.model_dump(mode="json") for kind in recipe.score]


def _title(recipe: config.Recipe) -> str:
    return f"{recipe.name} (seed {recipe.seed})"


def _scored_models(
    recipe: config.Recipe, folder: Path, images: Images, context: Context
) -> dict[str, EmbeddingModel | None]:
    """Whose features are scored, by the name they have in the table; None stands for the pixels themselves."""
    student, spec = load_model(folder)
    models: dict[str, EmbeddingModel | None] = {}
    teacher = _teacher_of(recipe)
    if teacher is not None:
        models[f"teacher ({_teacher_name(teacher)})"] = _load_teacher(recipe, images, context)
    models[f"{'trained' if teacher is None else 'student'} ({spec.backbone})"] = student
    models[f"untrained ({spec.backbone})"] = untrained(recipe, spec)
    return models | {"raw pixels": None}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_freed_memory() -> None:
    """Let glibc keep the activations that a step frees for the next one, where there is glibc.

    By default it returns blocks of this size to the system, and each step pays for fresh, zeroed pages: a fifth of the
    time of a training step of `tiny_convnet` at batch 1,024.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def _precision(asked: str, device: torch.device) -> torch.dtype:
    """bf16 where it is asked for, or where the hardware multiplies matrices in it."""
    if asked != "auto":
        return torch.bfloat16 if asked == "bf16" else torch.float32
    on_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    on_cpu = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if on_gpu or on_cpu else torch.float32


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "timm", "accelerate", "lightly", "scikit-learn")
    own = {"ssl-transfer": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in packages}


@contextmanager
def _stop_on_signal() -> Iterator[Stop]:
    """Turn the first interrupt into a request to stop between two steps; a second one interrupts at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        for which, handler in before.items():
            signal.signal(which, handler)

    before = {which: signal.signal(which, ask) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda step: asked
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
