"""Policy: which waiting task starts where, and why one still waits. Plans are proposals; `rules/` checks every placement."""
