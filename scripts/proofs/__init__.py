"""The proofs of scripts/prove: each does something to real processes, and says what became of what they had promised."""
