"""Templates of this package filled in, and protocols in words."""

import base64
from importlib.resources import files
from typing import Any

from ssl_transfer import scores
from ssl_transfer.scores.score import ScoreTable


def rendered(template: str, content: dict[str, Any], *, package: str = "ssl_transfer.report") -> str:
    """A template of ``package`` with ``content`` in it."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # loaded by the process that writes reports alone

    folder = files(package)
    loader = FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8"))
    pages = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=loader)
    return pages.get_template(template).render(content)


def data_url(image: bytes, kind: str) -> str:
    """The file of an image, ``png`` or ``jpeg``, as a page can hold it."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def protocols(table: ScoreTable) -> list[dict[str, Any]]:
    """For every metric how it was taken in words, what its models have in common, and a table of what they have not.

    Metrics in a row that were taken in the same way are one entry, under their names.
    """
    taken: list[dict[str, Any]] = []
    for metric in table.metrics:
        found = [score for score in table.scores if score.metric == metric]
        keys = dict.fromkeys(key for score in found for key in score.protocol)
        texts = {key: [_text(score.protocol.get(key)) for score in found] for key in keys}
        shared = {key: values[0] for key, values in texts.items() if len(set(values)) == 1}
        how = {
            "sentence": scores.explain(found),
            "shared": {key.replace("_", " "): value for key, value in shared.items()},
            "models": [score.model for score in found],
            "own": {key.replace("_", " "): values for key, values in texts.items() if key not in shared},
        }
        if taken and taken[-1] == how | {"metric": taken[-1]["metric"]}:
            taken[-1]["metric"] += f", {metric}"
        else:
            taken.append({"metric": metric, **how})
    return taken


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_text(key)}: {_text(entry)}" for key, entry in value.items())
    if isinstance(value, str):  # JSON's keys are text, also those that were numbers
        try:
            value = float(value)
        except ValueError:
            return value
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
