"""Agents that pretend: real streams of real agents to real managers, for nodes that aren't there and tasks that don't run."""
