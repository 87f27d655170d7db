"""Clusters to break: one that the harness makes for itself, or one that runs already."""
