"""From a recipe to a trained and scored model: the one place that sees both the settings and the tensors."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ssl_transfer import config, runs
from ssl_transfer.arithmetic import seconds_of_multiplying
from ssl_transfer.building.data import OpenSplits, build_batches
from ssl_transfer.building.fingerprints import check_inputs
from ssl_transfer.building.model import model_spec, untrained_everywhere
from ssl_transfer.building.optimizer import build_optimizer, learning_rate
from ssl_transfer.building.task import build_task
from ssl_transfer.building.teacher import load_teacher
from ssl_transfer.building.teacher_memory import batches_with_teachers, remembered_teachers
from ssl_transfer.context import Context, device_name, versions
from ssl_transfer.data import Batch, Batches, Images
from ssl_transfer.distributed import sum_over_processes, synchronize_batch_norm
from ssl_transfer.doctor import doubts
from ssl_transfer.errors import Interrupted, UserError, machine_limits, user_mistakes
from ssl_transfer.features.model_features import shows_pixels
from ssl_transfer.models import AveragedModel, EmbeddingModel
from ssl_transfer.models.checkpoint import ModelSpec, save_model
from ssl_transfer.models.compiled import compile_networks
from ssl_transfer.progress import duration
from ssl_transfer.report.page import VIEWS, write_report
from ssl_transfer.report.views_sheet import draw_views
from ssl_transfer.rescore import check_scores, score_once
from ssl_transfer.scores.base import Effort, WatchedTraining
from ssl_transfer.tasks.transfer import RelationalTransfer, Transfer
from ssl_transfer.training.engine import Keeping, Outcome, Plan, fit
from ssl_transfer.training.progress import ProgressReport

Stop = Callable[[int], bool]
REPEATED = 3.0  # seconds within which an interrupt is the same one again


@machine_limits()
def run(recipe: config.Recipe, *, stop: Stop | None = None) -> Path:
    """Train what the recipe describes unless that is done, score it unless that is done, and return its folder.

    Raises:
        UserError: something a person can mend, in one sentence.
        Interrupted: the program was asked to stop; the same call goes on from there.
    """
    context = Context.start(recipe)
    splits = OpenSplits(context)
    context.on_main_process(lambda: check_scores(recipe, splits))
    with _stop_on_signal() if stop is None else nullcontext(stop) as stop:
        folder = train(recipe, context, splits, stop, scored=True)
        if stop(0):  # after the last step, of which the loop takes no notice
            raise Interrupted(f"stopped; {folder} is trained, and the same command goes on from there")
    if runs.final_scores(recipe):
        score_once(recipe, folder, context, splits)
    context.say(f"run folder: {folder}")
    return folder


def train(recipe: config.Recipe, context: Context, splits: OpenSplits, stop: Stop, *, scored: bool = False) -> Path:
    """Bring the recipe's training to its end: from the start, from where it stopped, or not at all if it is done.

    ``scored`` says that it will be scored then, which a teacher is with its student.
    """
    with ExitStack() as held:  # by the main process: nobody else trains in the folder meanwhile
        folder, notice, info = context.on_main_process(
            lambda: held.enter_context(runs.exclusive_folder(recipe, partial(_wait, context, stop)))
        )
        if notice:
            context.say(notice)
        info = _with_inputs(recipe, folder, info, context, splits)
        if info.finished:
            context.on_main_process(lambda: _finish(folder))
            context.say(f"{folder} is trained ({info.steps:,} steps)")
        else:
            splits.keep_only(recipe)
            _train(recipe, folder, info, context, splits, stop, scored=scored)
    return folder


def _train(
    recipe: config.Recipe,
    folder: Path,
    info: runs.RunInfo,
    context: Context,
    splits: OpenSplits,
    stop: Stop,
    *,
    scored: bool,
) -> None:
    """Train in ``folder``, of which ``info`` says how far it is, and keep the model there."""
    built = _build(recipe, context, splits, stop, first=info.steps == 0)
    if any(teacher.recipe is not None for teacher in recipe.teachers):  # whose weights are known only now
        info = _with_inputs(recipe, folder, info, context, splits)
    taken = built.batches.images.inventory
    total_steps = recipe.train.steps or recipe.train.epochs * built.batches.steps_per_epoch
    info = replace(
        info,
        total_steps=total_steps,
        processes=context.accelerator.num_processes,
        device=device_name(context.device),
        precision=_arithmetic(recipe, context.precision_name, context.accelerator.num_processes),
        versions=versions(),
        images=None if taken is None else taken.summary(),
    )
    context.say(
        f"{recipe.name}: {recipe.task.kind}, {recipe.model.backbone}, {total_steps:,} steps of "
        f"{recipe.data.batch_size} images on {info.processes} x {info.device} in {info.precision}; run folder {folder}"
    )
    if context.accelerator.is_main_process:
        draw_views(built.batches, folder / VIEWS)
    outcome, teacher_loss = _fit(recipe, built, info, folder, context, splits, stop, scored=scored)

    def keep() -> None:
        save_model(folder, built.kept(), built.spec)
        runs.write_info(folder, replace(info, finished=True, teacher_loss=teacher_loss, **asdict(outcome)))
        _finish(folder)

    context.on_main_process(keep)


def _arithmetic(recipe: config.Recipe, precision: str, processes: int) -> str:
    """What the run's record says: the type of products, and that of gradients where several processes narrow it."""
    narrow = recipe.train.bf16_gradients is not None and processes > 1
    return precision + (", gradients averaged in bfloat16" if narrow else "")


def _with_inputs(
    recipe: config.Recipe, folder: Path, info: runs.RunInfo, context: Context, splits: OpenSplits
) -> runs.RunInfo:
    """``info`` with the fingerprints of the run's inputs, which must be those that it was begun with."""
    begun = info.steps > 0 and not info.finished

    def check() -> dict[str, str]:
        return check_inputs(recipe, folder, info.origin, splits, begun=begun)

    return replace(info, origin=context.on_main_process(check))


def _finish(folder: Path) -> None:
    """Complete a run that is trained, also one that was killed before it was complete.

    Raises:
        UserError: its weights are gone.
    """
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            f"{folder} was trained to its end but has no model.safetensors any more: bring the file back, or remove "
            "the folder to train again"
        )
    (folder / "state" / "state.pt").unlink(missing_ok=True)  # the finished weights are model.safetensors
    if not (folder / "report.html").is_file():
        write_report(folder)


@dataclass(frozen=True)
class _Built:
    """What a recipe describes, as objects on the device."""

    batches: Batches
    watched: Images
    spec: ModelSpec
    model: EmbeddingModel
    average: AveragedModel | None
    teachers: list[EmbeddingModel]
    task: nn.Module

    def kept(self) -> EmbeddingModel:
        """The model that is saved and scored."""
        return self.average.module if self.average else self.model  # type: ignore[return-value]


def _build(recipe: config.Recipe, context: Context, splits: OpenSplits, stop: Stop, *, first: bool) -> _Built:
    """The student first: a mistake in it should not wait for hours of teacher.

    Where training begins, and does not go on, it is said if the teacher looks wrong.
    """
    with user_mistakes():
        spec = model_spec(recipe, splits.opened(recipe, "training"))
        build_batches(recipe, splits.opened(recipe, "training"), context)
        model = context.place(untrained_everywhere(recipe, spec, context))
    teachers = _teachers(recipe, context, splits, stop)
    splits.keep_only(recipe)
    with user_mistakes():
        images, watched = splits.opened_training(recipe)
        batches = build_batches(recipe, images, context)
        if teachers and first:
            placed = [context.place(teacher) for teacher in teachers]
            for doubt in context.on_main_process(partial(doubts, recipe, placed, images)):
                context.say(f"! {doubt}")
        task = context.place(build_task(recipe, model, teachers, images, steps_per_epoch=batches.steps_per_epoch))
    if context.accelerator.num_processes > 1 and recipe.train.sync_batch_norm:
        synchronize_batch_norm(task)  # also those of heads that only training has, and of a copy that trails the model
    if recipe.train.compile:
        compile_networks(task)
    average = None if recipe.train.ema is None else AveragedModel(model)
    return _Built(batches, watched, spec, model, average, teachers, task)


def _teachers(recipe: config.Recipe, context: Context, splits: OpenSplits, stop: Stop) -> list[EmbeddingModel]:
    """The task's teachers; first those are trained that are recipes which have not been run to their end."""
    for teacher in recipe.teachers:
        if teacher.recipe is not None:
            with context.arithmetic_of(teacher.recipe) as own:  # so it has the weights of a run by itself
                train(teacher.recipe, own, splits, stop)
    return [load_teacher(teacher, context) for teacher in recipe.teachers]


def _fit(
    recipe: config.Recipe,
    built: _Built,
    info: runs.RunInfo,
    folder: Path,
    context: Context,
    splits: OpenSplits,
    stop: Stop,
    *,
    scored: bool,
) -> tuple[Outcome, float | None]:
    """Train what was built to the last step, from the state in ``folder`` if there is one.

    Beside the outcome it gives the loss of the last batch for a student that embeds as the teacher does, where the loss
    compares embeddings: what the curve can come down to.
    """
    accelerator, steps_per_epoch = context.accelerator, built.batches.steps_per_epoch
    batch: Callable[[int], Batch] = built.batches.batch
    if remembered := remembered_teachers(recipe):
        with user_mistakes():
            batch = batches_with_teachers(
                recipe, built.teachers, built.batches, info.total_steps, context, partial(_check, stop)
            )
        for part in list(built.task.modules()):
            if isinstance(part, Transfer):
                part.let_go(remembered)  # or they would go to the device with the task, never to be asked
    if recipe.train.tracker is not None:
        accelerator.init_trackers(recipe.name, config={"recipe": config.dump(recipe)})
    plan = Plan(
        seed=recipe.seed,
        batch_size=recipe.data.batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=info.total_steps,
        learning_rate=learning_rate(recipe, steps_per_epoch),
        clip_norm=recipe.train.clip_norm,
        bf16_gradients=recipe.train.bf16_gradients is not None,
    )
    keeping = Keeping(
        folder,
        checkpoint_every=recipe.train.checkpoint_every * steps_per_epoch,
        log_every=recipe.train.log_every,
        checkpoint_seconds=60 * recipe.train.checkpoint_minutes,
        also={"average": built.average} if built.average else {},
        on_save=lambda steps, seconds: runs.write_info(folder, replace(info, steps=steps, seconds=seconds)),
    )
    with user_mistakes(), closing(built.batches):
        outcome = fit(
            built.task,
            batch,
            build_optimizer(recipe, built.task),
            plan=plan,
            keeping=keeping,
            accelerator=accelerator,
            autocast=context.autocast,
            after_step=_after_step(recipe, built, splits),
            stop=stop,
            progress=ProgressReport(
                recipe.name,
                context.console,
                partial(_scoring_in_words, recipe, built, splits) if scored else lambda seconds_of_a_step: "",
            ),
        )
        teacher_loss = _teacher_loss(built.task, batch(info.total_steps - 1))
    for tracker in accelerator.trackers:
        tracker.finish()
    return outcome, teacher_loss


@torch.no_grad()
def _teacher_loss(task: nn.Module, batch: Batch) -> float | None:
    if not isinstance(task, RelationalTransfer) or len(task.teachers) > 1:  # of several none is the student's aim
        return None
    return sum_over_processes(task.teacher_loss(batch)).item()


def _scoring_in_words(recipe: config.Recipe, built: _Built, splits: OpenSplits, seconds_of_a_step: float) -> str:
    """What comes after training, and about how long it takes.

    The features of an image by student and untrained student take about as long as two thirds of a training step's
    share of it, of which a backward pass is twice a forward pass, and the teacher's are in both.
    """
    kinds = [kind for kind in recipe.score if not kind.during_training]
    if not kinds:
        return ""
    train, test = splits.listed(recipe, "train"), splits.listed(recipe, "test")
    share = seconds_of_a_step / (recipe.data.batch_size * recipe.data.views)
    multiply = seconds_of_multiplying(built.batches.images.pixels.device)
    widths = [model.num_features for model in (*built.teachers, built.model, built.model)]
    widths += [test.pixels.shape[1:].numel()] if shows_pixels(built.batches.images) else []
    efforts = [Effort(len(train), len(test), train.classes or 1, width, multiply, image=share / 3) for width in widths]
    seconds = (len(train) + len(test)) * share + sum(kind.seconds(effort) for kind in kinds for effort in efforts)
    measures = "1 measure" if len(kinds) == 1 else f"{len(kinds)} measures"
    return (
        f", then about {duration(seconds)} of scoring: the features of {len(train) + len(test):,} images "
        f"and {measures} of each model"
    )


def _after_step(
    recipe: config.Recipe, built: _Built, splits: OpenSplits
) -> list[Callable[[int], Mapping[str, float] | None]]:
    """What follows the model from step to step, and what watches the one that will be saved."""
    after: list[Callable[[int], Mapping[str, float] | None]] = []
    if built.average is not None and recipe.train.ema is not None:
        after.append(partial(_follow, built.average, built.model, recipe.train.ema))
    watched = WatchedTraining(
        built.kept,
        built.watched,
        built.batches.views,
        test=lambda: splits.scored(recipe, "test"),
        steps_per_epoch=built.batches.steps_per_epoch,
        seed=recipe.seed,
    )
    watchers = (kind.watcher(watched) for kind in recipe.score)
    return [*after, *(watcher for watcher in watchers if watcher is not None)]


def _follow(average: AveragedModel, model: nn.Module, momentum: float, step: int) -> None:
    average.update(model, momentum=momentum)


def show_views(recipe: config.Recipe, path: Path) -> None:
    """Draw some images of the first batch and their views into a picture."""
    context = Context.start(recipe)
    with user_mistakes():
        images = OpenSplits(context).opened(recipe, "training")
        with closing(build_batches(recipe, images, context)) as batches:
            draw_views(batches, path)


def _wait(context: Context, stop: Stop, folder: Path, seconds: int) -> None:
    if seconds == 0:
        context.say(f"waiting for {folder}, in which another program trains")
    if stop(0):
        raise Interrupted(f"stopped while waiting for {folder}, in which another program trains")


def _check(stop: Stop) -> None:
    if stop(0):
        raise Interrupted("stopped while the teacher's memory was filled; run the same command again to continue")


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

    if threading.current_thread() is not threading.main_thread():  # no other may ask for signals
        yield lambda step: False
        return
    before = {int(which): signal.signal(which, ask) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda step: asked is not None
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
