"""Features of a model: computed once, in float32, by all processes, and kept."""
