"""What a run trains: a module from a batch to ``{"loss": this process's share, ...}``, and its section of a recipe."""
