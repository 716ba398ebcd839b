"""``python -m ssl_transfer`` and ``accelerate launch -m ssl_transfer``."""

from ssl_transfer.cli import main

if __name__ == "__main__":
    main()
