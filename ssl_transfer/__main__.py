"""``ssl-transfer``, ``python -m ssl_transfer`` and ``accelerate launch -m ssl_transfer``."""

from ssl_transfer.program import end_at_once


def main() -> None:
    """Run the command line; a Ctrl-C while it is loaded is one sentence."""
    end_at_once("ssl-transfer")
    from ssl_transfer import cli

    cli.main()


if __name__ == "__main__":
    main()
