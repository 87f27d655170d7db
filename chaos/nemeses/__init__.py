"""Nemeses: everything that can go wrong, one module each. `chaos.registry` finds them."""
