"""Converts a model into a bundle of smaller, faster, verified variants."""
