"""Whose a score is."""

from typing import Literal

# A student has a teacher, a trained model has none; untrained is the same network before training. What a program of
# eval/ is pointed at is any other model.
Role = Literal["teacher", "student", "trained", "untrained", "raw pixels", "other"]
TRAINED: tuple[Role, ...] = ("student", "trained")  # the model that a run made


def teacher_word(number: int, of: int) -> str:
    """What one of several teachers is called, ``teacher 1`` where ``number`` is 0; a teacher alone is ``teacher``."""
    return "teacher" if of == 1 else f"teacher {number + 1}"
