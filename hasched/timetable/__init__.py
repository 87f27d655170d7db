"""When schedules are due: cron expressions, time zones, calendars, and what to warn of.

It reads the zone data of the `tzdata` package and nothing else of the world, so every manager with the same package finds the
same slots. The state machine never asks it: what is due is worked out here and then stands in the log (ADR 0022).
"""
