"""The verdicts on a run, one module for each group of promises. They are pure: from what was recorded to sentences."""
