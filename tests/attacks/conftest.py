"""What attacked runs are compared with."""

from pathlib import Path

import pytest

from tests.attacks.programs import RUN, AtOperation, call, place


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory) -> Path:
    """A folder in which the student was trained and scored without a stop; ``operations`` says how many there were."""
    folder = place(tmp_path_factory.mktemp("unbroken") / "there")
    ended = call(folder, *RUN, before=AtOperation(0, counted="operations"))
    assert ended.code == 0, ended.said
    return folder
