"""The loop and what it needs: optimizers, rates, progress, what is remembered of a teacher. It knows no recipe."""
