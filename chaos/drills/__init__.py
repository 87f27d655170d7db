"""Drills: failures that others had in production, one module each, with what is expected instead. `chaos.registry` finds them."""
