"""What every part of a recipe is made of: strict sections, the kinds of values they hold, and the words of problems."""

import difflib
import os
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    model_validator,
)

from ssl_transfer.catalog.presets import PRESETS
from ssl_transfer.errors import one_line
from ssl_transfer.files import is_address

AnySection = TypeVar("AnySection", bound="Section")
Rule = Callable[[AnySection], Iterator[str]]
_MARK = "_is_rule"


class Contradictions(ValueError):
    """Values that are right one by one and wrong together; ``problems`` has a sentence for each contradiction."""

    def __init__(self, problems: list[str]):
        super().__init__("; ".join(problems))
        self.problems = problems


def rule(check: Rule[AnySection]) -> Rule[AnySection]:
    """Make a method a rule of its section: it yields a sentence for each contradiction among the section's values."""
    setattr(check, _MARK, True)
    return check


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no silent conversion, only finite numbers, no change after reading.

    What can be said of one value alone belongs to the value's type; what takes several values is a :func:`rule`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @classmethod
    def rules(cls) -> list[Callable[[Any], Iterator[str]]]:
        """The rules of this section and of those it inherits from, in the order in which they are written down."""
        functions = (value for owner in reversed(cls.__mro__) for value in vars(owner).values())
        return [value for value in functions if isinstance(value, FunctionType) and hasattr(value, _MARK)]

    @classmethod
    def completed(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """The section as it was written, with defaults that depend on other keys."""
        return raw

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, raw: Any) -> Any:
        return cls.completed(raw) if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _keeps_its_rules(self) -> "Section":
        problems = [problem for check in self.rules() for problem in check(self)]
        if problems:
            raise Contradictions(problems)
        return self


def location(path: str) -> str:
    """The path that is meant, with the home folder for a ``~`` at its start; no shell puts it there after a ``=``.

    Raises:
        ValueError: nothing can lie there, it is an address, or a variable or a placeholder was left in the path.
    """
    if is_address(path):
        raise ValueError("an address is no folder or file on a disk, and only data.root of webdataset may be one")
    return _location(path)


def root(path: str) -> str:
    """A :func:`location`, or an address such as ``s3://bucket/folder``, which is left as it is.

    Raises:
        ValueError: nothing can lie there, or a variable or a placeholder was left in the path.
    """
    return _location(path)


def _location(path: str) -> str:
    if not path.strip():
        raise ValueError("no path is empty: write . for the folder that the program is started in")
    if left := re.search(r"\{\{|\$\{|\$\w+", path):
        raise ValueError(f"nothing fills in {left[0]} here: write the path itself")
    home = os.path.expanduser(path)
    if home.startswith("~"):
        raise ValueError(f"there is no home folder {home.partition('/')[0]}: write ./{path} for one of that name here")
    try:
        encoded = os.fsencode(home)
    except UnicodeEncodeError:
        raise ValueError("this locale knows no such letters in paths: set LC_ALL=C.UTF-8") from None
    if re.search(r"[\x00-\x1f\x7f]", home) or max(map(len, encoded.split(b"/"))) > 255 or len(encoded) > 3000:
        raise ValueError("a path has no control characters, at most 255 bytes in each name, and at most 3,000 in all")
    return home


def path_argument(text: str) -> str:
    """A path from a command line, where no shell expands what stands behind ``--option=`` either.

    Raises:
        ArgumentTypeError: in argparse's own way, what :func:`location` refuses.
    """
    try:
        return location(text)
    except ValueError as error:
        raise ArgumentTypeError(f"cannot be {short(text)}: {error}") from None


def tag(alternative: str) -> str:
    """The name of one of several forms of a value, which pydantic puts into the place of a problem beside the keys."""
    return f"({alternative})"


def is_tag(part: Any) -> bool:
    """Whether a part of a place is such a name, and not a key or a position."""
    return isinstance(part, str) and part.startswith("(")


def suggest(given: Any, allowed: Any) -> str:
    """The end of a sentence about an unknown name: the nearest one if there is one, and all that are allowed."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    return (f"; did you mean {near[0]!r}?" if near else "") + f" (allowed: {', '.join(names)})"


def short(value: Any) -> str:
    """A value as a recipe has it, cut where it is long."""
    text = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _in_float32(value: float) -> float:
    if value and not 1e-30 <= abs(value) <= 1e30:
        raise ValueError("float32 holds no such number; write one between 1e-30 and 1e30")
    return value


def _in_order(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the lower end comes first: write [{ends[1]:g}, {ends[0]:g}]")
    return ends


def _a_color(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) not in (1, 3):
        raise ValueError("write one value for gray images, or three for red, green and blue")
    return values


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"there is no such preset{suggest(name, PRESETS)}")
    return name


def _no_number(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):  # Python takes 1 for True
        raise ValueError("write true or false")
    return value


def _told_apart(temperature: float) -> float:
    if temperature < 1e-8:
        raise ValueError("float32 does not tell similarities apart that finely; write 1e-8 or more")
    return temperature


_Float = Annotated[float, AfterValidator(_in_float32)]
Positive = Annotated[_Float, Field(gt=0)]
Temperature = Annotated[Positive, AfterValidator(_told_apart)]  # that similarities are divided by, before a softmax
NotNegative = Annotated[_Float, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
CountOrZero = Annotated[int, Field(ge=0, lt=2**31)]
Counts = Annotated[tuple[Count, ...], Strict(False), Field(min_length=1)]
Range = Annotated[tuple[Positive, Positive], Strict(False), AfterValidator(_in_order)]
Shares = Annotated[tuple[Share, Share], Strict(False), AfterValidator(_in_order)]
Mean = Annotated[tuple[Probability, ...], Strict(False), AfterValidator(_a_color)]  # of pixels from 0 to 1
Deviation = Annotated[tuple[Share, ...], Strict(False), AfterValidator(_a_color)]
Preset = Annotated[str, AfterValidator(_known_preset)]
Location = Annotated[str, AfterValidator(location)]
Root = Annotated[str, AfterValidator(root)]
TrueOrLeftOut = Annotated[Literal[True], BeforeValidator(_no_number)]
AutoOrBool = Annotated[Literal["auto", True, False], BeforeValidator(_no_number)]


def reason(error: Exception) -> str:
    """What an error says, in one line; of what pydantic found, the first place and what is wrong there."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else first["msg"]
    return one_line(error)
