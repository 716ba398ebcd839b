"""``ssl-transfer export``: a finished run as a folder that other programs load, with a model card."""
