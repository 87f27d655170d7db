"""`hasched dev`: a whole cluster of real processes in one terminal."""
