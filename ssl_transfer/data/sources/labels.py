"""Labels as files give them, numbers or the names of classes, to numbers."""

import re
from collections.abc import Callable, Sequence
from typing import Any


def number_labels(
    labels: Sequence[Any], where: str, name: Callable[[int], str]
) -> tuple[list[int] | None, list[str] | None]:
    """A number for each label, and the names of the classes if labels are names; no numbers if all labels are hidden.

    A hidden label is a number below 0, or None. Numbers are kept, names are numbered in alphabetical order. ``name`` is
    what a person calls the image at a place, and ``where`` what all of them are in.

    Raises:
        ValueError: some labels are hidden and others not, or they are not all whole numbers or all names.
    """
    hidden = [place for place, label in enumerate(labels) if label is None or (isinstance(label, int) and label < 0)]
    if len(hidden) == len(labels):
        return None, None
    if hidden:
        raise ValueError(
            f"{len(hidden)} of {len(labels)} images in {where} have no class, the first is {name(hidden[0])}: give "
            "each one, a name or a number of 0 or more, or give none, or choose labels=none."
        )
    first = labels[0]
    kind = int if isinstance(first, int) else str
    wrong = next((place for place, label in enumerate(labels) if not isinstance(label, kind) or label == ""), None)
    if wrong is not None:
        other = "" if wrong == 0 else f", where {name(0)} has {first!r}"
        raise ValueError(
            f"{name(wrong)} in {where} has the label {labels[wrong]!r}{other}: labels must all be whole numbers, or "
            "all be names."
        )
    if kind is int:
        return [int(label) for label in labels], None
    names = sorted(set(labels))
    number = {class_name: place for place, class_name in enumerate(names)}
    return [number[label] for label in labels], names


def parse_label(text: bytes, where: str) -> int | str:
    """The class that a file of one holds: a whole number, or a name, which has a letter in it and one line.

    Raises:
        ValueError: it is neither.
    """
    try:
        label = text.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        label = ""
    if re.fullmatch(r"[+-]?[0-9]{1,18}", label):
        return int(label)
    if _is_name(label):
        return label
    raise ValueError(f"{where} holds {text[:40]!r}, which is neither a whole number nor the name of a class.")


def _is_name(text: str) -> bool:
    if not any(character.isalpha() for character in text) or len(text.splitlines()) > 1 or text[0] in "[{":
        return False
    try:
        float(text)  # 1e3 and nan have letters too
    except ValueError:
        return True
    return False
