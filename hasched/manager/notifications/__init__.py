"""Notifications: who delivers what waits in the outbox, and how it gets there."""
