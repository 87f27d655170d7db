"""The fault harness: workloads, faults, checkers and reports, against a cluster as it is seen from outside."""

SUMMARY = "Break a cluster on purpose, and prove that nothing is lost."
