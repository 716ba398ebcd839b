"""Many runs of one recipe, one after the other in this program, on the processes that it was started with.

The same sweep may be started on several machines that share the disk with the runs: each takes one that nobody trains.

A run that is done is not run again, and one that was stopped continues, whoever started it: see
:mod:`ssl_transfer.tables.grid`. All students of a sweep share a teacher unless its own recipe is swept.
"""

import gc
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from ssl_transfer import config, runs
from ssl_transfer.errors import Interrupted, UserError
from ssl_transfer.tables.grid import Combination


class Failed(UserError):
    """Some runs of a sweep failed."""

    exit_code = 1

    def __init__(self, failures: Mapping[str, str], of: int):
        lines = "".join(f"\n  {name}: {failure}" for name, failure in failures.items())
        super().__init__(f"{len(failures)} of {of} runs failed; the same command tries them again{lines}")


def describe(combinations: Sequence[Combination]) -> str:
    """What is about to happen, in a sentence: how many runs, how many of them are done, and who teaches."""
    teachers: dict[str, str] = {}
    for combination in combinations:
        for recipe in (teacher.recipe for teacher in combination.recipe.teachers):
            if recipe is not None:
                # `seed` is the student's: only task.teacher.recipe.seed gives the students different teachers.
                teachers[config.identity_hash(recipe)] = f"{recipe.name} (seed {recipe.seed})"
    done = sum(combination.done for combination in combinations)
    count = {0: "", 1: "; one teacher, "}.get(len(teachers), f"; {len(teachers)} teachers, ")
    return f"{len(combinations)} runs, {done} of them done{count}{', '.join(teachers.values())}"


def run(combinations: Sequence[Combination], say: Callable[[str], None]) -> dict[str, str]:
    """Run what is not done, and return what went wrong by the name of the run; a failed run does not stop the others.

    Raises:
        Interrupted: a person asked to stop.
    """
    failures: dict[str, str] = {}
    waiting = [combination for combination in combinations if not combination.done]
    for number, combination in enumerate(combinations, start=1):
        if combination not in waiting:
            say(f"[{number}/{len(combinations)}] {combination.recipe.name} is done")
    if not waiting:
        return failures
    from ssl_transfer.context import join_processes, leave, on_main_process

    join_processes()
    while waiting:
        with ExitStack() as claim:  # by the main process, until the run has ended
            combination = waiting.pop(on_main_process(partial(_next, waiting, claim)))
            name = combination.recipe.name
            say(f"[{combinations.index(combination) + 1}/{len(combinations)}] {name}")
            failure = _run_one(combination.recipe)
        if failure is not None:
            say(f"{name} failed: {failure}")
            failures[name] = failure
    leave()
    return failures


def _next(waiting: Sequence[Combination], claim: ExitStack) -> int:
    """The place of the first run that no other program trains or is about to, as on another machine; else the first.

    A run's own lock is taken some time after it is chosen, and programs of a job array choose at the same moment.
    """
    for place, combination in enumerate(waiting):
        if runs.is_free(combination.folder) and claim.enter_context(runs.claimed(combination.folder)):
            return place
    return 0


def _run_one(recipe: config.Recipe) -> str | None:
    from ssl_transfer import recipe as runner  # loads torch: only when there is something to run
    from ssl_transfer.distributed import everyone_says, world_size

    try:
        runner.run(recipe)
    except Interrupted:
        raise
    # What fails on this process alone leaves the others waiting for it: then all have to end, and the same command goes
    # on from there.
    except UserError as error:
        if not everyone_says(f"{recipe.name}: {error}"):
            raise
        return str(error)
    except Exception as error:
        if world_size() > 1:
            raise
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"
    finally:
        gc.collect()  # what a run leaves in cycles should not sit on the device while the next one trains
    return None
