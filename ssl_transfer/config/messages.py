"""The words in which a recipe's problems are told."""

import difflib
from typing import Any


def suggest(given: Any, allowed: Any) -> str:
    """The end of a sentence about an unknown name: the nearest one if there is one, and all that are allowed."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (allowed: {', '.join(names)})"


def short(value: Any) -> str:
    """A value as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_line(error: Exception) -> str:
    """What went wrong, without the library's further lines."""
    return getattr(error, "problem", None) or str(error).splitlines()[0]
