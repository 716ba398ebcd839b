"""What the package offers: said in the code, and in the manual."""

import inspect
from pathlib import Path

import pytest

import ssl_transfer.data

MANUAL = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


@pytest.mark.parametrize("name", ssl_transfer.data.__all__)
def test_every_public_name_has_a_docstring_and_stands_in_the_manual(name):
    thing = getattr(ssl_transfer.data, name)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        assert "\n" in thing.__doc__ or thing.__doc__.endswith("."), "a sentence, and not what a dataclass generates"
        assert not thing.__doc__.startswith(f"{name}(")
    assert f"`{name}" in MANUAL


def test_all_that_can_be_imported_from_the_package_is_public():
    offered = {
        name
        for name, thing in vars(ssl_transfer.data).items()
        if not name.startswith("_") and not inspect.ismodule(thing)
    }
    assert offered == set(ssl_transfer.data.__all__)
