"""Scripts for sbatch as jobs: what their lines say, what that is here, and what it isn't."""
