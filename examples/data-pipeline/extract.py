"""The rows of the source in parts of 100, and their names as the task's output."""

import argparse
import json
import os
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--source", type=Path, required=True)
source = parser.parse_args().source
rows = [line for line in source.read_text().splitlines() if line and not line.startswith("#")]
parts = []
for start in range(0, len(rows), 100):
    part = Path(f"part-{start:04}.tsv")
    part.write_text("\n".join(rows[start : start + 100]))
    parts.append(str(part))
Path(os.environ["HASCHED_OUTPUT"]).write_text(json.dumps({"rows": len(rows), "parts": parts}))
