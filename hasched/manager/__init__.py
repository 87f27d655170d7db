"""A manager as a whole: its configuration, its wiring, and what it does while it leads."""
