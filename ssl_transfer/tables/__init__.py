"""Tables over runs: sweep a grid of recipes, compare finished runs, beside published numbers."""
