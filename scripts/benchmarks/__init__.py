"""The benchmark's parts. Every figure stands beside the limit of the machine that was measured in the same run."""
