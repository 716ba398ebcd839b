"""Plain tables that recipes are checked against; nothing here loads torch."""
