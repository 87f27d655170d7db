"""The daemon on a machine that runs work: a pure core, a driver, and a supervisor that owns the processes."""
