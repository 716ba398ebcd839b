"""The package as a person meets it: its names, its weights, its page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_transfer import losses

PAGE = Path(__file__).parents[2] / "docs" / "losses.md"


def test_weights_are_read_without_loading_torch():
    code = "import sys; from ssl_transfer.losses import WEIGHTS; assert WEIGHTS and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", [name for name in losses.__all__ if name != "WEIGHTS"])
def test_every_public_name_is_there_and_stays_when_its_module_is_imported(name):
    thing = getattr(losses, name)
    assert callable(thing) and thing.__doc__
    assert sys.modules[thing.__module__] and getattr(losses, name) is thing


def test_static_imports_are_the_lazy_ones():
    source = Path(losses.__file__).read_text()
    declared = re.findall(r"import \(?\s*(\w+) as \1", source)
    assert sorted(declared) == sorted(losses.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'triplet'"):
        losses.triplet  # noqa: B018


@pytest.mark.parametrize("name", [name for name in losses.__all__ if name not in ("WEIGHTS", "draw_negatives")])
def test_every_loss_is_in_the_table_of_the_page(name):
    assert f"| `{name}` |" in PAGE.read_text()


def test_every_weight_belongs_to_a_loss():
    public = {name.lower() for name in losses.__all__}
    assert {name.replace("_", "") for name in losses.WEIGHTS} <= {name.replace("_", "") for name in public}


def test_the_example_of_the_page_runs_and_its_shares_add_up(capsys):
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    assert len(example.strip().splitlines()) <= 16
    exec(compile(example, "docs/losses.md", "exec"), {})
    *steps, difference = capsys.readouterr().out.splitlines()
    values = [float(line.split()[1]) for line in steps]
    assert values[-1] < values[0]
    assert abs(float(re.search(r"-?\d+\.?\d*(e-?\d+)?", difference).group(0))) < 1e-3
