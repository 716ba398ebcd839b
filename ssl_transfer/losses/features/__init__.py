"""Losses of one image's features or logits: each is a mean over rows, with the same ``rows`` argument."""
