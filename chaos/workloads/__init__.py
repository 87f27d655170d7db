"""Workloads: what clients do while things break, as values. `chaos.registry` finds them."""
