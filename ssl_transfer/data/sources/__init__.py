"""Where images come from: one file a layout on disk."""
