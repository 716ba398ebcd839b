"""Teachers: where they come from, and the memory of what they made of fixed views."""
