"""Augmented views: crops, color, blur and what else happens to an image."""
