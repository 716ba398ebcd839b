"""The text of a recipe: the part of YAML 1.2 that recipes are written in, read and written.

Mappings with words for keys, lists, text, whole and decimal numbers, ``true``, ``false`` and ``null``; an alias is a
copy. What else YAML has, such as tags, merge keys and keys that are mappings themselves, is refused by its name.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

MOST_VALUES = 2_000  # with aliases written out; a recipe has about a hundred


class Unreadable(ValueError):
    """Text that is no YAML, or YAML that no recipe is written in; ``line`` counts from 1, None where there is none."""

    def __init__(self, problem: str, line: int | None = None):
        super().__init__(problem)
        self.line = line


def parse(text: str) -> Any:
    """The value that ``text`` spells; no two parts of it are one object.

    Raises:
        Unreadable: with the line and what is wrong there.
    """
    try:
        return _Reader(text).read()
    except yaml.reader.ReaderError as error:
        problem = str(error).splitlines()[0]
        raise Unreadable(f"not readable as YAML: {problem}", text.count("\n", 0, error.position) + 1) from None
    except yaml.MarkedYAMLError as error:
        problem, mark = ", ".join(filter(None, [error.context, error.problem])), error.problem_mark
        raise Unreadable(f"not readable as YAML: {problem}", mark.line + 1 if mark else None) from None
    except RecursionError:
        raise Unreadable("something is nested too deeply, or within itself") from None


def write(value: Any) -> str:
    """``value`` as YAML that readers of YAML 1.1 and 1.2 read alike, and :func:`parse` too."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, width=110)


class _Reader(yaml.SafeLoader):
    """Tells by YAML 1.2 what a word without quotes is: ``3e-2`` is a number, ``no`` and ``1_000`` are words."""

    def read(self) -> Any:
        """The value of the only document."""
        node = self.get_single_node()
        return None if node is None else self._value(node, iter(range(MOST_VALUES)))

    def _value(self, node: yaml.Node, left: Iterator[int]) -> Any:
        """The value of a node; ``left`` counts down the values that there may still be."""
        if next(left, None) is None:
            raise _at(node, f"from here on there are more than {MOST_VALUES:,} values, with aliases written out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        _refuse_tag(node, _TAG + ("map" if isinstance(node, yaml.MappingNode) else "seq"))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, left) for item in node.value]
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key in mapping:
                raise _at(key_node, f"the key {key!r} is given twice")
            mapping[key] = self._value(value_node, left)
        return mapping

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise _at(node, "a mapping or a list is no key; where a template left {{ ... }}, fill it in")
        if node.value == "<<" and node.style is None:
            raise _at(node, "merge keys (<<) are not supported: write the keys out, or make a whole section an alias")
        self._scalar(node)
        return node.value

    def _scalar(self, node: yaml.ScalarNode) -> str | int | float | bool | None:
        plain, text = node.style is None, node.value
        tag = self.resolve(yaml.ScalarNode, text, (plain, not plain))
        _refuse_tag(node, tag)
        try:
            return _VALUES.get(tag, str)(text)
        except ValueError:
            raise _at(node, f"{len(text):,} digits are too many for a number") from None


class _Writer(yaml.SafeDumper):
    """Puts quotes around words that are numbers in YAML 1.2, besides those that are something else in 1.1."""


_TAG = "tag:yaml.org,2002:"
_WORDS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|false|False", list("tTfF")),
    "int": (r"[-+]?[0-9]+", list("-+0123456789")),
    "float": (r"[-+]?(\.\d+|\d+\.\d*|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)", list("-+.0123456789")),
}
_VALUES: dict[str, Callable[[str], Any]] = {
    f"{_TAG}null": lambda text: None,
    f"{_TAG}bool": lambda text: text.lower() == "true",
    f"{_TAG}int": int,
    f"{_TAG}float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}
_Reader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _WORDS.items():
    _Reader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)
    _Writer.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_pattern})$"), _first)


def _refuse_tag(node: yaml.Node, expected: str) -> None:
    if node.tag != expected:
        written = node.tag.replace(_TAG, "!!")
        raise _at(node, f"tags are not supported: leave {written} out, and put quotes around what is text")


def _at(node: yaml.Node, problem: str) -> Unreadable:
    return Unreadable(problem, node.start_mark.line + 1)
