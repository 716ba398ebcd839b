"""Losses over pairs or triplets of rows: each is a sum over anchors, with the same ``anchors`` argument."""
