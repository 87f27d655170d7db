"""Checkers: from what was recorded of a run to sentences about what is wrong with it; none if nothing is.

They are pure. The simulation in `tests/simulation/` and drills against real clusters record differently and ask the same.
"""
