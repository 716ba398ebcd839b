"""From a recipe to a scored student: the one place that sees both the settings and the tensors."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from torch import nn

from ssl_transfer import config, runs, tasks
from ssl_transfer.building.data import (
    build_batches,
    list_images,
    open_images,
    open_training,
    scored_part,
    scored_splits,
)
from ssl_transfer.building.model import model_spec, untrained
from ssl_transfer.building.optimizer import build_optimizer, learning_rate
from ssl_transfer.building.origin import check_origin
from ssl_transfer.building.recall import batches_with_teacher, remembers
from ssl_transfer.building.task import build_task
from ssl_transfer.building.teacher import load_teacher, teacher_name
from ssl_transfer.checkpoint import ModelSpec, load_model, save_model
from ssl_transfer.context import Context, device_name, versions
from ssl_transfer.data import Batch, Batches, Images
from ssl_transfer.distributed import synchronize_batch_norm
from ssl_transfer.errors import user_mistakes
from ssl_transfer.models import AveragedModel, EmbeddingModel
from ssl_transfer.report.page import write_report
from ssl_transfer.scoring.best_on_test import RecallOnTest, best_on_test
from ssl_transfer.scoring.check import check_scores
from ssl_transfer.scoring.kinds import needed_layers, score_subject
from ssl_transfer.scoring.monitor import Monitor
from ssl_transfer.scoring.scores import Score, read_scores, write_scores
from ssl_transfer.scoring.subject import make_subject
from ssl_transfer.scoring.table import print_scores
from ssl_transfer.training.engine import Interrupted, Outcome, fit
from ssl_transfer.views_sheet import draw_views

Stop = Callable[[int], bool]
# The baseline of raw pixels is for images of up to 64 x 64: a probe of larger ones takes longer than all the others.
RAW_PIXELS = 3 * 64 * 64
REPEATED = 3.0  # seconds within which an interrupt is the same one again


def run(recipe: config.Recipe, *, stop: Stop | None = None) -> Path:
    """Train what the recipe describes unless that is done, score it unless that is done, and return its folder.

    Raises:
        UserError: something a person can mend, in one sentence.
    """
    context = Context.start(recipe)
    context.on_main(lambda: _check_scores(recipe))
    with _stop_on_signal() if stop is None else nullcontext(stop) as stop:
        folder = train(recipe, context, stop)
    if runs.asked(recipe):
        _score_once(recipe, folder, context)
    context.say(f"run folder: {folder}")
    return folder


def train(recipe: config.Recipe, context: Context, stop: Stop) -> Path:
    """Bring the recipe's training to its end: from the start, from where it stopped, or not at all if it is done."""
    with ExitStack() as held:  # by the main process: nobody else trains in the folder meanwhile
        folder, notice, info = context.on_main(
            lambda: held.enter_context(runs.held(recipe, partial(_wait, context, stop)))
        )
        if notice:
            context.say(notice)
        info = replace(info, origin=context.on_main(lambda: check_origin(recipe, folder, info.origin)))
        if info.finished:
            context.say(f"{folder} is trained ({info.steps:,} steps)")
        else:
            _train(recipe, folder, info, context, stop)
    return folder


def _train(recipe: config.Recipe, folder: Path, info: runs.RunInfo, context: Context, stop: Stop) -> None:
    """Train in ``folder``, of which ``info`` says how far it is, and keep the model there."""
    built = _build(recipe, context, stop)
    total_steps = recipe.train.steps or recipe.train.epochs * built.batches.steps_per_epoch
    info = replace(
        info,
        total_steps=total_steps,
        processes=context.accelerator.num_processes,
        device=device_name(context.device),
        precision=context.precision_name,
        versions=versions(),
    )
    context.say(
        f"{recipe.name}: {recipe.task.kind}, {recipe.model.backbone}, {total_steps:,} steps of "
        f"{recipe.data.batch_size} images on {info.processes} x {info.device} in {info.precision}; run folder {folder}"
    )
    outcome = _fit(recipe, built, info, folder, context, stop)
    if context.accelerator.is_main_process:
        save_model(folder, built.kept(), built.spec)
        runs.write_info(folder, replace(info, finished=True, **asdict(outcome)))
        (folder / "state" / "state.pt").unlink(missing_ok=True)  # the finished weights are model.safetensors
        write_report(folder)
    context.accelerator.wait_for_everyone()


@dataclass(frozen=True)
class _Built:
    """What a recipe describes, as objects on the device."""

    batches: Batches
    watched: Images
    spec: ModelSpec
    model: EmbeddingModel
    average: AveragedModel | None
    teacher: EmbeddingModel | None
    task: nn.Module

    def kept(self) -> EmbeddingModel:
        """The model that is saved and scored."""
        return self.average.module if self.average else self.model  # type: ignore[return-value]


def _build(recipe: config.Recipe, context: Context, stop: Stop) -> _Built:
    """The student first: a mistake in it should not wait for hours of teacher."""
    with user_mistakes():
        images, watched = open_training(recipe, context)
        batches = build_batches(recipe, images, context)
        spec = model_spec(recipe, images)
        model = context.place(untrained(recipe, spec))
    teacher = _teacher(recipe, context, stop)
    with user_mistakes():
        task = context.place(build_task(recipe, model, teacher, images, steps_per_epoch=batches.steps_per_epoch))
    if context.accelerator.num_processes > 1 and recipe.train.sync_batch_norm:
        synchronize_batch_norm(task)  # also those of heads that only training has, and of a copy that trails the model
    if recipe.train.compile:
        model.backbone.network.compile()
    average = None if recipe.train.ema is None else AveragedModel(model)
    return _Built(batches, watched, spec, model, average, teacher, task)


def _fit(
    recipe: config.Recipe, built: _Built, info: runs.RunInfo, folder: Path, context: Context, stop: Stop
) -> Outcome:
    """Train what was built, from where ``folder`` says it stands to the last step."""
    accelerator, steps_per_epoch = context.accelerator, built.batches.steps_per_epoch
    batch: Callable[[int], Batch] = built.batches.batch
    if remembers(recipe):
        assert built.teacher is not None
        with user_mistakes():
            batch = batches_with_teacher(
                recipe, built.teacher, built.batches, info.total_steps, context, partial(_check, stop)
            )
        for part in built.task.modules():
            if isinstance(part, tasks.Transfer):
                del part.teacher  # or it would go to the device with the task, never to be asked
    if recipe.train.tracker is not None:
        accelerator.init_trackers(recipe.name, config={"recipe": config.dump(recipe)})
    with user_mistakes(), closing(built.batches):
        outcome = fit(
            built.task,
            batch,
            build_optimizer(recipe, built.task),
            accelerator=accelerator,
            folder=folder,
            title=recipe.name,
            seed=recipe.seed,
            batch_size=recipe.data.batch_size,
            steps_per_epoch=steps_per_epoch,
            total_steps=info.total_steps,
            learning_rate=learning_rate(recipe, steps_per_epoch),
            autocast=context.autocast,
            clip_norm=recipe.train.clip_norm,
            checkpoint_every=recipe.train.checkpoint_every * steps_per_epoch,
            log_every=recipe.train.log_every,
            after_step=_after_step(recipe, built, context),
            also_saved={"average": built.average} if built.average else {},
            on_save=lambda steps, seconds: runs.write_info(folder, replace(info, steps=steps, seconds=seconds)),
            stop=stop,
            console=context.console,
        )
    for tracker in accelerator.trackers:
        tracker.finish()
    return outcome


def _after_step(
    recipe: config.Recipe, built: _Built, context: Context
) -> list[Callable[[int], Mapping[str, float] | None]]:
    """What follows the model from step to step, and what watches the one that will be saved."""
    batches = built.batches
    after: list[Callable[[int], Mapping[str, float] | None]] = []
    if built.average is not None and recipe.train.ema is not None:
        after.append(partial(_follow, built.average, built.model, recipe.train.ema))
    for kind in recipe.score:
        if isinstance(kind, config.Monitor):
            every = kind.every * batches.steps_per_epoch
            settings = {"every": every, "count": kind.images, "k": kind.k, "seed": recipe.seed}
            after.append(Monitor(built.kept, built.watched, batches.views, **settings))
        if isinstance(kind, config.BestOnTest):
            every, images = kind.every * batches.steps_per_epoch, open_images(recipe, "test", context)
            after.append(RecallOnTest(built.kept, scored_part(recipe, images), k=kind.k, every=every))
    return after


def rescore(recipe: config.Recipe, folder: Path, context: Context | None = None) -> None:
    """Score teacher, student, untrained student and raw pixels by the recipe's probes; write and print the scores."""
    context = context or Context.start(recipe)
    with user_mistakes():
        opened = scored_splits(recipe, lambda part: open_images(recipe, part, context))
        splits = [scored_part(recipe, images) for images in opened]
        student, spec = load_model(folder)
        scores: list[Score] = []
        teacher = None
        for name, model in _scored_models(recipe, student, spec, splits[0], context).items():
            subjects = {
                layer: make_subject(
                    name, model, splits, layer=layer, train_features=train_features, cache=folder / "features"
                )
                for layer, train_features in needed_layers(recipe.score).items()
            }
            main = context.accelerator.is_main_process
            scores += score_subject(
                subjects,
                recipe.score,
                seed=recipe.seed,
                teacher=teacher,
                main=main,
                classes=student.embedding_dim,
            )
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
            **runs.decides_scores(recipe),
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
    with user_mistakes(), closing(build_batches(recipe, open_images(recipe, "training", context), context)) as batches:
        draw_views(batches, path)


def leave() -> None:
    """Leave the group of processes, if there is one, at the end of a program."""
    PartialState().destroy_process_group()


def _teacher(recipe: config.Recipe, context: Context, stop: Stop) -> EmbeddingModel | None:
    """The task's teacher, trained first if it is a recipe that has not been run to its end."""
    teacher = recipe.teacher
    if teacher is None:
        return None
    if teacher.recipe is not None:
        with context.arithmetic_of(teacher.recipe) as own:  # so it has the weights of a run by itself
            train(teacher.recipe, own, stop)
    with user_mistakes():
        return load_teacher(recipe, context)


def _wait(context: Context, stop: Stop, folder: Path, seconds: int) -> None:
    if seconds == 0:
        context.say(f"waiting for {folder}, in which another program trains")
    if stop(0):
        raise Interrupted(f"stopped while waiting for {folder}, in which another program trains")


def _check(stop: Stop) -> None:
    if stop(0):
        raise Interrupted("stopped while the teacher's memory was filled; run the same command again to continue")


def _follow(average: AveragedModel, model: nn.Module, momentum: float, step: int) -> None:
    average.update(model, momentum=momentum)


def _check_scores(recipe: config.Recipe) -> None:
    """Refuse before anything is trained what scoring would refuse after it."""
    info = runs.read_info(runs.folder_of(recipe)[0])
    if not runs.asked(recipe) or (info is not None and info.finished):
        return
    with user_mistakes():
        train, test = scored_splits(recipe, partial(list_images, recipe))
        classified = any(isinstance(kind, config.Classification) for kind in recipe.score)
        check_scores(
            recipe.score,
            train,
            test,
            resident=recipe.data.resident,
            teacher=recipe.teacher is not None,
            classes=list_images(recipe, "training").classes if classified else None,
        )


def _score_once(recipe: config.Recipe, folder: Path, context: Context) -> None:
    """Score the run unless the same scores stand in its folder already; then print those."""
    known = context.on_main(lambda: read_scores(folder / "scores.json") if runs.has_scores(recipe, folder) else None)
    if known is None:
        rescore(recipe, folder, context)
    elif context.console is not None:
        print_scores(known, _title(recipe), context.console)


def _title(recipe: config.Recipe) -> str:
    return f"{recipe.name} (seed {recipe.seed})"


def _scored_models(
    recipe: config.Recipe, student: EmbeddingModel, spec: ModelSpec, images: Images, context: Context
) -> dict[str, EmbeddingModel | None]:
    """Whose features are scored, by the name they have in the table; None stands for the pixels themselves."""
    models: dict[str, EmbeddingModel | None] = {}
    teacher = recipe.teacher
    if teacher is not None:
        models[f"teacher ({teacher_name(teacher)})"] = load_teacher(recipe, context)
    models[f"{'trained' if teacher is None else 'student'} ({spec.backbone})"] = student
    models[f"untrained ({spec.backbone})"] = untrained(recipe, spec)
    small = images.resident and images.pixels.shape[1:].numel() <= RAW_PIXELS
    return models | ({"raw pixels": None} if small else {})


@contextmanager
def _stop_on_signal() -> Iterator[Stop]:
    """Turn the first interrupt into a request to stop between two steps; a second one interrupts at once.

    A process of several gets one Ctrl-C from the terminal and again from its launcher: that is no second one.
    """
    asked: float | None = None

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked is None:
            asked = time.monotonic()
        elif time.monotonic() - asked > REPEATED:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    before = {int(which): signal.signal(which, ask) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda step: asked is not None
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
