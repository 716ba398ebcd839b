"""Everything that is wrong with a recipe, in sentences: where, what was given, what is allowed."""

import re
from collections.abc import Callable, Iterator
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from ssl_transfer.section import Contradictions, Section, is_tag, short, suggest

Place = tuple[str | int, ...]  # keys and positions in lists; where pydantic gives it, also the kinds of sections
_UNKNOWN = object()  # in the place of a value that is wrong


class NotRead(str):
    """The path of a recipe in the place of its content, with ``why`` it could not be read."""

    why: str


def problems_of(error: ValidationError, raw: dict[str, Any], model: type[Section]) -> list[str]:
    """A sentence for each problem of ``raw``, of which pydantic said ``error`` when it was to become a ``model``.

    First the values that are wrong alone, then those that contradict each other. Of these pydantic tells only what it
    meets in a section without a wrong value in or below it; here every rule is asked that finds all of its values.
    """
    details: list[Any] = [
        {**detail, "loc": tuple(part for part in detail["loc"] if not is_tag(part))}
        for detail in error.errors(include_url=False)
    ]
    alone = [detail for detail in details if not _contradictions_in(detail)]
    together = [
        _at(_place(detail["loc"], model)[0], problem) for detail in details for problem in _contradictions_in(detail)
    ]
    known = _as_far_as_known(model, raw, {detail["loc"] for detail in alone}, ())
    return [*_sentences(alone, model), *dict.fromkeys([*together, *_contradictions(known)])]


def told(title: Any, problems: list[str]) -> str:
    """All problems below a title that counts them."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return f"{title}: {count}\n" + "\n".join(f"  {problem}" for problem in problems)


def _contradictions_in(detail: Any) -> list[str]:
    error = detail.get("ctx", {}).get("error")
    return error.problems if isinstance(error, Contradictions) else []


def _sentences(details: list[Any], model: type[Section]) -> list[str]:
    """One for each wrong value, of which pydantic may tell several: one for each thing that it might have been."""
    found: dict[Place, str] = {}
    for detail in details:
        place, section = _place(detail["loc"], model)
        if place not in found:
            found[place] = _sentence(detail, place, section)
    above = {place[:length] for place in found for length in range(len(place))}
    return [words for place, words in found.items() if place not in above]


def _sentence(detail: Any, place: Place, section: type[Section]) -> str:
    """One problem in our words; ``section`` is where the last key of ``place`` belongs, or does not belong."""
    given, context = short(detail.get("input")), detail.get("ctx", {})
    tell: dict[str, Callable[[], str]] = {
        "missing": lambda: "is missing",
        "extra_forbidden": lambda: f"is no key here{suggest(place[-1], section.model_fields)}",
        "literal_error": lambda: f"cannot be {given}{suggest(detail['input'], _quoted(context['expected']))}",
        "union_tag_invalid": lambda: (
            f"kind cannot be {short(context['tag'])}{suggest(context['tag'], _quoted(context['expected_tags']))}"
        ),
        "union_tag_not_found": lambda: "has no kind",
        "value_error": lambda: f"cannot be {given}: {context['error']}",
        "string_pattern_mismatch": lambda: f"cannot be {given}: use letters, digits, '.', '_' and '-'",
        "tuple_type": lambda: f"cannot be {given}: write a list, such as [1, 2]",
        **dict.fromkeys(("model_type", "model_attributes_type"), lambda: f"cannot be {given}: write keys below it"),
    }
    if isinstance(detail.get("input"), NotRead):
        return _at(place, detail["input"].why)
    plain = detail["msg"][0].lower() + detail["msg"][1:]
    words = tell.get(detail["type"], lambda: f"cannot be {given}: {plain}")()
    return _at(place, words)


def _place(location: Place, model: type[Section]) -> tuple[Place, type[Section]]:
    """The keys and positions among the parts of pydantic's ``location``, and the section of the last key.

    What is left out are kinds, which choose a section, and the alternatives of what a value may be.
    """
    place: list[str | int] = []
    owner, inner, value = model, [model], None  # where the last key is; what is below it: sections, or a plain value
    for part in location:
        if isinstance(part, int) or value is dict:
            place.append(part)
        elif len(inner) == 1:
            place.append(part)
            (owner,) = inner
            field = owner.model_fields.get(part)
            inner = _sections(field.annotation) if field else []
            value = get_origin(field.annotation) if field else None
        else:
            inner = [section for section in inner if part in _kinds(section)]
    return tuple(place), owner


def _as_far_as_known(section: type[Section], raw: dict[str, Any], wrong: set[Place], at: Place) -> Section:
    """A section with the values of ``raw`` that are right, and without the others, which are ``wrong`` or missing."""
    raw = section.completed(raw)
    values, unknown = {}, []
    for name, field in section.model_fields.items():
        if name in raw:
            value = _known(field.annotation, raw[name], wrong, (*at, name))
            if value is _UNKNOWN:
                unknown.append(name)
            else:
                values[name] = value
    made = section.model_construct(**values)  # with defaults for what is left out
    for name in unknown:
        made.__dict__.pop(name, None)
    return made


def _known(annotation: Any, value: Any, wrong: set[Place], at: Place) -> Any:
    sections = _sections(annotation)
    if not sections:
        return _UNKNOWN if any(location[: len(at)] == at for location in wrong) else value
    if at in wrong:
        return _UNKNOWN
    if isinstance(value, list):
        items = [_known(annotation, item, wrong, (*at, position)) for position, item in enumerate(value)]
        return [item for item in items if item is not _UNKNOWN]
    if not isinstance(value, dict):
        return value
    if len(sections) == 1:
        return _as_far_as_known(sections[0], value, wrong, at)
    kind = value["kind"]
    (section,) = (section for section in sections if kind in _kinds(section))
    return _as_far_as_known(section, value, wrong, (*at, kind))


def _contradictions(section: Section, place: Place = ()) -> Iterator[str]:
    """What the rules of a section and of those below it say, as far as all values that a rule asks for are there."""
    for name, value in vars(section).items():
        if isinstance(value, Section):
            yield from _contradictions(value, (*place, name))
        elif isinstance(value, list):
            for position, item in enumerate(value):
                if isinstance(item, Section):
                    yield from _contradictions(item, (*place, name, position))
    for check in section.rules():
        try:
            problems = list(check(section))
        except AttributeError:  # a value that the rule asks for is wrong itself, or missing
            continue
        yield from (_at(place, problem) for problem in problems)


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that a value with this annotation may be, or be a list of."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return list(dict.fromkeys(found for inner in get_args(annotation) for found in _sections(inner)))


def _kinds(section: type[Section]) -> tuple[Any, ...]:
    return get_args(section.model_fields["kind"].annotation)


def _at(place: Place, words: str) -> str:
    dotted = ".".join(str(part) if 0 < len(str(part)) <= 60 else short(part) for part in place)
    return f"{dotted}: {words}" if place else words


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)
