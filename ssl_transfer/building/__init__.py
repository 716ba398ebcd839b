"""From a recipe to what it describes: images, the model, its teacher, the task, the optimizer."""
