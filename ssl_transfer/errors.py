"""The one exception that means: the person who started the program can mend this."""


class UserError(Exception):
    """A mistake in a recipe, a path or a command, told in one sentence; the command line prints it and exits with 2."""

    exit_code = 2
