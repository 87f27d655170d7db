"""The replicated state machine: commands in, events out, one deterministic state. Pure: no clock, randomness or IO."""
