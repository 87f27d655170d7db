"""hasched: a highly available job scheduler for teams who own their machines."""

__version__ = "0.2.0.dev0"
