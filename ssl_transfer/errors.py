"""The one exception that means: the person who started the program can mend this."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in a recipe, a path or a command, in one sentence; the command line prints it and exits with 2."""

    exit_code = 2


@contextmanager
def user_mistakes() -> Iterator[None]:
    """Around calls at the border: what a part refuses in one sentence, the person reads as that sentence."""
    try:
        yield
    except (ValueError, FileNotFoundError, PermissionError) as error:
        raise UserError(" ".join(str(error).split())) from error
