"""``ssl-transfer``, ``python -m ssl_transfer`` and ``accelerate launch -m ssl_transfer``."""

import os
import sys

from ssl_transfer.program import end_at_once


def main() -> None:
    """Run the command line; a Ctrl-C while it is loaded is one sentence."""
    if os.name == "nt":
        sys.exit("ssl-transfer: Windows is not supported; it runs in WSL 2, which is a Linux, and on macOS")
    end_at_once("ssl-transfer")
    from ssl_transfer import cli

    cli.main()


if __name__ == "__main__":
    main()
