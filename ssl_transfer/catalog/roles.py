"""Whose a score is."""

from typing import Literal

# A student has a teacher, a trained model has none; untrained is the same network before training. What a program of
# eval/ is pointed at is any other model.
Role = Literal["teacher", "student", "trained", "untrained", "raw pixels", "other"]
TRAINED: tuple[Role, ...] = ("student", "trained")  # the model that a run made
