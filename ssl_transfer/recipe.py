"""From a recipe to a scored student: the one place that sees both the settings and the tensors."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState
from torch import Tensor, nn

from ssl_transfer import config, runs
from ssl_transfer.checkpoint import load_model, save_model
from ssl_transfer.context import Context, device_name, versions
from ssl_transfer.data import Augment, Batches, Images, load_images
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.engine import fit
from ssl_transfer.errors import user_mistakes
from ssl_transfer.evaluation import compute_features
from ssl_transfer.model_building import model_spec, untrained
from ssl_transfer.models import AveragedModel, EmbeddingModel
from ssl_transfer.optim import create_optimizer
from ssl_transfer.schedules import constant, warmup_cosine
from ssl_transfer.scoring import Score, print_scores, read_scores, score_features, write_scores
from ssl_transfer.task_building import build_task
from ssl_transfer.teachers import load_teacher, teacher_name, teacher_of

Stop = Callable[[int], bool]


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
        versions=versions(),
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
            "versions": versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_scores(folder / "scores.json", scores, about)
        print_scores(scores, _title(recipe), context.console)
    context.accelerator.wait_for_everyone()


def leave() -> None:
    """Leave the group of processes, if there is one, at the end of a program."""
    PartialState().destroy_process_group()


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


def _teacher(recipe: config.Recipe, images: Images, context: Context, stop: Stop) -> EmbeddingModel | None:
    """The task's teacher, trained first if it is a recipe that has not been run to its end."""
    teacher = teacher_of(recipe)
    if teacher is None:
        return None
    if teacher.recipe is not None:
        train(teacher.recipe, context, stop)
    with user_mistakes():
        return load_teacher(recipe, images, context)


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
    teacher = teacher_of(recipe)
    if teacher is not None:
        models[f"teacher ({teacher_name(teacher)})"] = load_teacher(recipe, images, context)
    models[f"{'trained' if teacher is None else 'student'} ({spec.backbone})"] = student
    models[f"untrained ({spec.backbone})"] = untrained(recipe, spec)
    return models | {"raw pixels": None}


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
