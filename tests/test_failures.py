"""What one process of several meets alone, and what all of them meet."""

from collections.abc import Callable
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
import torch.distributed as dist

from ssl_transfer import cli, distributed, recipe
from ssl_transfer.errors import UserError
from ssl_transfer.tables import sweep
from tests.processes import on_two_processes


def fail(*ranks: int) -> Callable[[Any], None]:
    """Do nothing, but on these processes fail."""

    def do(given: Any) -> None:
        if dist.get_rank() in ranks:
            raise UserError(f"{len(ranks)} cannot read 7.jpg")

    return do


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "everyone_says", partial(distributed.everyone_says, within=3.0))


def check_sweep(rank: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        soon(monkeypatch)
        monkeypatch.setattr(recipe, "run", fail(0, 1))
        assert sweep._run_one(SimpleNamespace(name="first")) == "2 cannot read 7.jpg"
        assert sweep._run_one(SimpleNamespace(name="second")) == "2 cannot read 7.jpg"
        monkeypatch.setattr(recipe, "run", fail(1))
        if rank == 0:  # which waits meanwhile, here for nothing
            assert sweep._run_one(SimpleNamespace(name="third")) is None
        else:
            with pytest.raises(UserError, match="1 cannot read"):
                sweep._run_one(SimpleNamespace(name="third"))

        def fail_differently(given: Any) -> None:
            raise UserError(f"{rank} cannot read 7.jpg")

        monkeypatch.setattr(recipe, "run", fail_differently)
        with pytest.raises(UserError, match=f"{rank} cannot read"):
            sweep._run_one(SimpleNamespace(name="fourth"))


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_mistake_of_all_processes_and_ends_with_any_other():
    on_two_processes(check_sweep)


def check_command_line(rank: int) -> None:
    def told(*ranks: int) -> str:
        monkeypatch.setattr(cli, "_run", fail(*ranks))
        with redirect_stderr(StringIO()) as shown:
            if rank in ranks:
                with pytest.raises(SystemExit, match="2"):
                    cli.main(["run", "any.yaml"])
            else:
                cli.main(["run", "any.yaml"])
        return shown.getvalue()

    with pytest.MonkeyPatch.context() as monkeypatch:
        soon(monkeypatch)
        assert told(0, 1) == ("" if rank else "ssl-transfer: 2 cannot read 7.jpg\n")
        assert told(1) == ("ssl-transfer (process 1): 1 cannot read 7.jpg\n" if rank else "")


@pytest.mark.slow
def test_the_first_process_tells_the_mistake_of_all_and_any_process_its_own():
    on_two_processes(check_command_line)
