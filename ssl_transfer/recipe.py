"""From a recipe to a scored student: the one place that sees both the settings and the tensors."""

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState
from torch import nn

from ssl_transfer import config, runs
from ssl_transfer.best_on_test import RecallOnTest, best_on_test
from ssl_transfer.checkpoint import load_model, save_model
from ssl_transfer.context import Context, cores_of_process, device_name, versions
from ssl_transfer.data import Augment, Batch, Batches, Images, load_images
from ssl_transfer.data.subset import first_images
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.engine import Interrupted, fit
from ssl_transfer.errors import user_mistakes
from ssl_transfer.evaluation import make_subject
from ssl_transfer.model_building import model_spec, untrained
from ssl_transfer.models import AveragedModel, EmbeddingModel
from ssl_transfer.monitoring import Monitor
from ssl_transfer.optim import create_optimizer
from ssl_transfer.recall import batches_with_teacher, remembers
from ssl_transfer.report.page import write_report
from ssl_transfer.schedules import constant, multi_step, warmup_cosine
from ssl_transfer.scoring import Score, layers, print_scores, read_scores, score_subject, write_scores
from ssl_transfer.task_building import build_task
from ssl_transfer.teachers import load_teacher, teacher_name, teacher_of
from ssl_transfer.views_sheet import draw_views

Stop = Callable[[int], bool]
# The baseline of raw pixels is for images of up to 64 x 64: a probe of larger ones takes longer than all the others.
RAW_PIXELS = 3 * 64 * 64


def run(recipe: config.Recipe, *, stop: Stop | None = None) -> Path:
    """Train what the recipe describes unless that is done, score it unless that is done, and return its folder.

    Raises:
        UserError: something a person can mend, in one sentence.
    """
    context = Context.start(recipe)
    with _stop_on_signal() if stop is None else nullcontext(stop) as stop:
        folder = train(recipe, context, stop)
    if runs.asked(recipe):
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
        images = open_images(recipe, "training", context)
        batches = _batches(recipe, images, context)
        spec = model_spec(recipe, images)
        model = context.place(untrained(recipe, spec))
    teacher = _teacher(recipe, context, stop)
    with user_mistakes():
        task = context.place(build_task(recipe, model, teacher, images, steps_per_epoch=batches.steps_per_epoch))
    if accelerator.num_processes > 1 and recipe.train.sync_batch_norm:
        synchronize_batch_norm(task)  # also those of heads that only training has, and of a copy that trails the model
    if recipe.train.compile:
        model.backbone.network.compile()
    momentum = recipe.train.ema
    average = AveragedModel(model) if momentum is not None else None
    kept: EmbeddingModel = average.module if average else model  # type: ignore[assignment]  # what is saved and scored
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
    batch: Callable[[int], Batch] = batches.batch
    if remembers(recipe):
        assert teacher is not None
        with user_mistakes():
            batch = batches_with_teacher(recipe, teacher, batches, total_steps, context, partial(_check, stop))
    if recipe.train.tracker is not None:
        accelerator.init_trackers(recipe.name, config={"recipe": config.dump(recipe)})
    with user_mistakes(), closing(batches):
        outcome = fit(
            task,
            batch,
            create_optimizer(
                task,
                name=recipe.optim.name,
                lr=recipe.optim.lr,
                weight_decay=recipe.optim.weight_decay,
                momentum=recipe.optim.momentum,
                decay_all=recipe.optim.decay_all is not None,
                **(recipe.optim.lars.model_dump() if recipe.optim.lars else {}),
                lr_scales={"loss": recipe.task.proxy_lr_scale} if isinstance(recipe.task, config.Metric) else {},
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
            after_step=[
                *([partial(_follow, average, model, momentum)] if average and momentum else []),
                *_monitors(recipe, lambda: kept, images, batches),
                *_recall_on_test(recipe, lambda: kept, batches, context),
            ],
            also_saved={"average": average} if average else {},
            on_save=lambda steps, seconds: runs.write_info(folder, replace(info, steps=steps, seconds=seconds)),
            stop=stop,
            console=context.console,
        )
    if accelerator.is_main_process:
        save_model(folder, kept, spec)
        runs.write_info(folder, replace(info, finished=True, **asdict(outcome)))
        (folder / "state" / "state.pt").unlink(missing_ok=True)  # the finished weights are model.safetensors
        write_report(folder)
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    return folder


def rescore(recipe: config.Recipe, folder: Path, context: Context | None = None) -> None:
    """Score teacher, student, untrained student and raw pixels by the recipe's probes; write and print the scores."""
    context = context or Context.start(recipe)
    with user_mistakes():
        train, test = (scored_part(recipe, open_images(recipe, part, context)) for part in ("train", "test"))
        splits = [train, test.numbered_like(train)]
        scores: list[Score] = []
        teacher = None
        for name, model in _scored_models(recipe, folder, train, context).items():
            subjects = {
                layer: make_subject(name, model, splits, layer=layer, cache=folder / "features")
                for layer in layers(recipe.score)
            }
            main = context.accelerator.is_main_process
            scores += score_subject(subjects, recipe.score, seed=recipe.seed, teacher=teacher, main=main)
            if name.startswith("teacher"):
                teacher = subjects
            if main and name.startswith(("trained", "student")):
                scores += [
                    score
                    for kind in recipe.score
                    if isinstance(kind, config.BestOnTest)
                    for score in best_on_test(folder, name, kind.k)
                ]
    if context.console is not None:
        about = {
            "asked": runs.asked(recipe),
            "dataset": recipe.data.dataset,
            "fingerprints": {images.split: images.fingerprint for images in splits},
            "identity": config.identity_hash(recipe),
            "seed": recipe.seed,
            "device": device_name(context.device),
            "versions": versions(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_scores(folder / "scores.json", scores, about)
        write_report(folder)
        print_scores(scores, _title(recipe), context.console)
    context.accelerator.wait_for_everyone()


def show_views(recipe: config.Recipe, path: Path) -> None:
    """Draw some images of the first batch and their views into a picture."""
    context = Context.start(recipe)
    with user_mistakes(), closing(_batches(recipe, open_images(recipe, "training", context), context)) as batches:
        draw_views(batches, path)


def leave() -> None:
    """Leave the group of processes, if there is one, at the end of a program."""
    PartialState().destroy_process_group()


def learning_rate(recipe: config.Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate as a function of the step."""
    optim = recipe.optim
    if optim.schedule == "constant":
        return partial(constant, base=optim.lr)
    if optim.milestones is not None:
        milestones = [epoch * steps_per_epoch for epoch in optim.milestones]
        return partial(multi_step, base=optim.lr, milestones=milestones)
    return partial(
        warmup_cosine,
        total_steps=recipe.train.epochs * steps_per_epoch,
        warmup_steps=round(optim.warmup_epochs * steps_per_epoch),
        base=optim.lr,
        final=optim.final_lr,
    )


def _teacher(recipe: config.Recipe, context: Context, stop: Stop) -> EmbeddingModel | None:
    """The task's teacher, trained first if it is a recipe that has not been run to its end."""
    teacher = teacher_of(recipe)
    if teacher is None:
        return None
    if teacher.recipe is not None:
        train(teacher.recipe, context, stop)
    with user_mistakes():
        return load_teacher(recipe, context)


def open_images(recipe: config.Recipe, part: Literal["training", "train", "test"], context: Context) -> Images:
    """The images that are trained on, or whose labels probes learn from, or that are scored; on the device."""
    data = recipe.data
    train = data.train or "train"
    split = {"training": data.split or train, "train": train, "test": data.test or "test"}[part]
    with context.accelerator.main_process_first():  # one process downloads, the others find the files
        images = load_images(
            data.dataset,
            Path(data.root),
            split=split,
            download=data.download,
            image_size=data.image_size,
            on_error=data.on_error,
            resident=data.resident,
            workers=cores_of_process() if data.workers is None else data.workers,
            memory=Path(recipe.train.runs) / "checked-images",
            train_classes=data.train_classes,
        )
    if data.images is not None and part != "test":
        images = first_images(images, data.images)
    return images.to(context.device)


def _batches(recipe: config.Recipe, images: Images, context: Context) -> Batches:
    data = recipe.data
    size = data.crop_size or images.pixels.shape[-1]
    return Batches(
        images,
        [Augment(size, **view) for view in data.augment.views(data.views)],
        seed=recipe.seed,
        batch_size=data.batch_size,
        per_class=data.per_class,
        fixed_views=data.fixed_views,
        rank=context.accelerator.process_index,
        world=context.accelerator.num_processes,
    )


def _check(stop: Stop) -> None:
    if stop(0):
        raise Interrupted("stopped while the teacher's memory was filled; run the same command again to continue")


def _monitors(
    recipe: config.Recipe, model: Callable[[], EmbeddingModel], images: Images, batches: Batches
) -> list[Monitor]:
    """What watches the model that will be saved, as the recipe's score asks for."""
    return [
        Monitor(
            model,
            images,
            batches.views,
            every=kind.every * batches.steps_per_epoch,
            count=kind.images,
            k=kind.k,
            seed=recipe.seed,
        )
        for kind in recipe.score
        if isinstance(kind, config.Monitor)
    ]


def _recall_on_test(
    recipe: config.Recipe, model: Callable[[], EmbeddingModel], batches: Batches, context: Context
) -> list[RecallOnTest]:
    """What measures the test split during training, where a score of the recipe is chosen on it."""
    asked = [kind for kind in recipe.score if isinstance(kind, config.BestOnTest)]
    if not asked:
        return []
    images = scored_part(recipe, open_images(recipe, "test", context))
    return [RecallOnTest(model, images, k=kind.k, every=kind.every * batches.steps_per_epoch) for kind in asked]


def scored_part(recipe: config.Recipe, images: Images) -> Images:
    """What a model sees of ``images`` when it is scored: their middle, as large as the views that it is trained on."""
    return images if recipe.data.crop_size is None else images.middle(recipe.data.crop_size)


def _follow(average: AveragedModel, model: nn.Module, momentum: float, step: int) -> None:
    average.update(model, momentum=momentum)


def _score_once(recipe: config.Recipe, folder: Path, context: Context) -> None:
    """Score the run unless the same scores stand in its folder already; then print those."""
    known = context.on_main(lambda: read_scores(folder / "scores.json", asked=runs.asked(recipe)))
    if known is None:
        rescore(recipe, folder, context)
    elif context.console is not None:
        print_scores(known, _title(recipe), context.console)


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
        models[f"teacher ({teacher_name(teacher)})"] = load_teacher(recipe, context)
    models[f"{'trained' if teacher is None else 'student'} ({spec.backbone})"] = student
    models[f"untrained ({spec.backbone})"] = untrained(recipe, spec)
    small = images.resident and images.pixels.shape[1:].numel() <= RAW_PIXELS
    return models | ({"raw pixels": None} if small else {})


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
