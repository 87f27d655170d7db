"""`hasched` with a bug put back, as a program: the daemons of a real cluster that the fault harness must find wanting.

    python tests/support/mutated.py BUG[+BUG] manager start --config …

The bugs are the mutants of the simulation, by their names there.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def main() -> None:
    sys.path[:0] = [str(ROOT)]
    from hasched.cli.main import cli
    from tests.simulation import mutants_above  # noqa: F401 - registers its mutants
    from tests.simulation.mutants import MUTANTS
    from tests.simulation.patches import Patches

    patches = Patches()  # for as long as the process lives
    for bug in sys.argv.pop(1).split("+"):
        MUTANTS[bug].install(patches)
    cli.main(prog_name="hasched")


if __name__ == "__main__":
    main()
