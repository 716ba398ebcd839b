"""Embeddings of any images by any model: computed, kept with the images' names, searched and drawn."""
