"""`hasched agent start`: wires an agent together and runs it until SIGTERM."""

from __future__ import annotations

from hasched.agent.config import AgentConfig


def run_agent(config: AgentConfig) -> int:
    """Run the agent until SIGTERM or SIGINT; its tasks go on under the supervisor. Returns the exit status."""
    raise NotImplementedError(config.node_id)
