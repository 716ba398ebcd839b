"""The package as a person meets it: its names and its page."""

import re
from pathlib import Path

import pytest

from ssl_transfer import probes

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize("name", probes.__all__)
def test_every_public_name_is_documented(name):
    assert f"`{name}`" in PAGE
    thing = getattr(probes, name)
    if callable(thing):
        first_line = thing.__doc__.partition("\n")[0]
        assert first_line.endswith(".") and len(first_line.split()) > 4


def test_the_example_of_the_page_runs(capsys):
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    exec(compile(example, "docs/evaluation.md", "exec"), {})
    neighbors, linear = capsys.readouterr().out.splitlines()
    assert neighbors.startswith("{(1, 0.1): ") and float(linear) > 0.9
