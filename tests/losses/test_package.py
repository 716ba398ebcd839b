"""The package as a person meets it: its names and its page."""

import re
from pathlib import Path

import pytest

from ssl_transfer import distributed, losses

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()


@pytest.mark.parametrize("name", losses.__all__)
def test_every_public_name_is_documented(name):
    first_line = getattr(losses, name).__doc__.partition("\n")[0]
    assert first_line.endswith(".") and len(first_line.split()) > 4
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", distributed.__all__)
def test_every_public_name_of_several_processes_is_documented(name):
    assert getattr(distributed, name).__doc__ and f"`{name}`" in PAGE


@pytest.mark.parametrize("name", losses.__all__)
def test_every_loss_is_in_the_table_of_the_page(name):
    assert f"| `{name}` |" in PAGE


def test_the_example_of_the_page_runs_and_its_shares_add_up(capsys):
    example, distributed_example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(distributed_example, "docs/losses.md", "exec"), {})
    assert len(example.strip().splitlines()) <= 16
    exec(compile(example, "docs/losses.md", "exec"), {})
    *steps, difference = capsys.readouterr().out.splitlines()
    values = [float(line.split()[1]) for line in steps]
    assert values[-1] < values[0]
    assert abs(float(re.search(r"-?\d+\.?\d*(e-?\d+)?", difference).group(0))) < 1e-3
