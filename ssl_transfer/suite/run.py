"""``ssl-transfer suite``: models beside their teacher on many data sets."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from rich.console import Console

from ssl_transfer.context import cores_of_process, device_name, join_processes, keep_freed_memory, versions
from ssl_transfer.distributed import main_process_first, meet
from ssl_transfer.errors import UserError, one_line, user_mistakes
from ssl_transfer.features.model_features import ModelFeatures, shows_pixels
from ssl_transfer.progress import Stage, duration
from ssl_transfer.report.page import write_report
from ssl_transfer.report.suite import write_suite_page
from ssl_transfer.runs.suite_file import FOLDER, SuiteResults, write_suite
from ssl_transfer.scores.score import Score
from ssl_transfer.suite.asked import Asked, asked_for
from ssl_transfer.suite.models import Subject, open_subjects
from ssl_transfer.suite.scoring import Kept, TimeLeft, Watch, features, measure
from ssl_transfer.suite.sets import SuiteSet, open_set

_STREAMED_ALONE = 2000  # images up to which processes that decode ahead cost more than they save


def run_suite(asked: Asked) -> SuiteResults:
    """Score every model on every data set that is there; write the results as they come, and say them.

    Several processes share the images of each data set, and the probes of different models and data sets. What was
    measured before with the same weights, images and probes is taken from the folder.

    Raises:
        UserError: a model cannot be had, no data set is there, or the folder cannot be written.
    """
    names = asked_for(asked.on)
    state = join_processes()
    if state.device.type == "cpu":
        keep_freed_memory()
    console = Console(markup=False, emoji=False) if state.is_main_process else None
    watch = Watch()
    with user_mistakes():
        with main_process_first():
            subjects = open_subjects(asked.models, asked.teacher, baselines=asked.baselines)
            sets, missing, damaged = _open_sets(names, asked)
    if not sets:
        raise UserError(f"none of these data sets is there: {'; '.join({**missing, **damaged}.values())}")
    for subject in subjects:
        if subject.model is not None:
            subject.model.to(state.device)
    about = {
        "on": list(asked.on),
        "probes": list(asked.probes),
        "images": asked.images,
        "device": device_name(state.device),
        "processes": state.num_processes,
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for name, why in {**missing, **damaged}.items():
        _say(console, f"{name}: not scored: {why}")
    scores, failed = _Suite(asked, subjects, sets, state, console).scores()
    results = SuiteResults(scores, missing, {**damaged, **failed}, {**about, "seconds": round(watch(), 1)})
    if state.is_main_process:
        write_suite(asked.folder, results)
        if scores:
            write_suite_page(asked.folder, results)
        if asked.folder.name == FOLDER and (asked.folder.parent / "run.json").is_file():
            write_report(asked.folder.parent)
    meet()
    return results


def _open_sets(names: Sequence[str], asked: Asked) -> tuple[list[SuiteSet], dict[str, str], dict[str, str]]:
    """The data sets that are there; why others are not; and what is wrong with those that are there and damaged."""
    found: list[SuiteSet] = []
    missing: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for name in names:
        try:
            found.append(open_set(name, asked.root, download=asked.download, limit=asked.images))
        except FileNotFoundError as error:
            missing[name] = one_line(error)
        except ValueError as error:
            damaged[name] = one_line(error)
    return found, missing, damaged


def _say(console: Console | None, text: str) -> None:
    if console is not None:
        console.print(text, highlight=False, soft_wrap=True)


Unit = tuple[SuiteSet, Subject]


class _Suite:
    """The units of work, a model on a data set each, and how far they are."""

    def __init__(
        self,
        asked: Asked,
        subjects: Sequence[Subject],
        sets: Sequence[SuiteSet],
        state: PartialState,
        console: Console | None,
    ):
        self.asked, self.state, self.console = asked, state, console
        self.units = [(opened, subject) for opened in sets for subject in subjects if _takes(subject, opened)]
        self.kept = Kept(asked.folder / "parts")
        self.left = TimeLeft()
        self.failed: dict[str, str] = {}

    def scores(self) -> tuple[list[Score], dict[str, str]]:
        """All scores, in the order of the data sets and models, and what could not be scored."""
        scores: dict[int, list[Score]] = {}
        waiting = []
        for place, (opened, subject) in enumerate(self.units):
            known = self._known(opened, subject)
            if known is None:
                waiting.append(place)
            else:
                scores[place] = known
        if scores:
            _say(self.console, f"{len(scores)} of {len(self.units)} were measured before and are kept")
        while waiting:
            group, waiting = waiting[: self.state.num_processes], waiting[self.state.num_processes :]
            scores |= self._measured(group, waiting)
        return [score for place in sorted(scores) for score in scores[place]], self.failed

    def _known(self, opened: SuiteSet, subject: Subject) -> list[Score] | None:
        path = self.kept.path(subject, opened, self.asked.probes)
        found = [self.kept.read(path, subject, opened) if self.state.is_main_process else None]
        return broadcast_object_list(found)[0]

    def _measured(self, group: Sequence[int], waiting: Sequence[int]) -> dict[int, list[Score]]:
        """The scores of a group of units: all processes compute the features of each, and each probes those of one."""
        own: list[Any] = []
        mine: list[tuple[int, ModelFeatures, SuiteSet]] = []
        watch = Watch()
        for number, place in enumerate(group):
            opened, subject = self.units[place]
            seen = self._seen(opened, subject)
            try:
                with self._stage(place) as stage:
                    found = features(subject, seen, self.asked.folder / "features", stage.advance)
            except ValueError as error:
                if self.state.num_processes > 1:  # the others wait for this one's part
                    raise UserError(f"{opened.name} cannot be scored, leave it out: {one_line(error)}") from error
                own.append((place, [], one_line(error)))
                continue
            if number == self.state.process_index:
                mine.append((place, found, seen))
        for place, found, seen in mine:  # after all features, whose computation takes all processes
            try:
                own.append((place, measure(found, seen, self.asked.probes), None))
            except ValueError as error:
                own.append((place, [], one_line(error)))
        done: dict[int, list[Score]] = {}
        meet()
        for place, scores, why in gather_object(own):
            opened, subject = self.units[place]
            if why is not None:
                self.failed[f"{opened.name}, {subject.name}"] = why
                _say(self.console, f"{opened.name}, {subject.name}: not scored: {why}")
                continue
            done[place] = scores
            if self.state.is_main_process:
                self.kept.write(self.kept.path(subject, opened, self.asked.probes), scores)
            self.left.took(subject, opened.images, watch() / len(group))
            figures = "  ".join(f"{score.metric} {score.percent}" for score in scores)
            rest = [(self.units[other][1], self.units[other][0].images) for other in waiting]
            left = f"  about {duration(self.left.of(rest))} left" if rest else ""
            count = f"{len(self.units) - len(waiting)}/{len(self.units)}"
            _say(self.console, f"{count}  {opened.name}  {subject.name}  {figures}  ({duration(watch())}){left}")
        return done

    def _seen(self, opened: SuiteSet, subject: Subject) -> SuiteSet:
        if subject.model is None:
            return opened.seen_by(opened.train.pixels.shape[1], opened.train.pixels.shape[-1], 0, self.state.device)
        backbone = subject.model.backbone
        workers = cores_of_process() if opened.images > _STREAMED_ALONE else 0
        return opened.seen_by(len(backbone.mean), backbone.input_size, workers, self.state.device)

    def _stage(self, place: int) -> Stage:
        opened, subject = self.units[place]
        return Stage(f"{opened.name}  {subject.name}", self.console, opened.images, unit="images", passing=True)


def _takes(subject: Subject, opened: SuiteSet) -> bool:
    """Whether the model is measured on the data set: raw pixels are on some alone."""
    return subject.model is not None or shows_pixels(opened.train)
