"""Of one part, how many zones each country has; the file with the counts is the task's output."""

import argparse
import json
import os
from collections import Counter
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--input", type=Path, required=True)
part = parser.parse_args().input
first_countries = (line.split("\t")[0].split(",")[0] for line in part.read_text().splitlines())
counts = Path(f"counts-{part.stem}.json")
counts.write_text(json.dumps(Counter(first_countries)))
Path(os.environ["HASCHED_OUTPUT"]).write_text(str(counts))
