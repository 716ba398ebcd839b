"""The version, read by the packaging without importing the rest."""

__version__ = "0.1.0"
