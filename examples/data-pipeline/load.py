"""The counts of all parts into the warehouse: the rows of a day are replaced whole, so loading twice changes nothing."""

import argparse
import json
import os
import sqlite3
from collections import Counter
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--destination", required=True)
parser.add_argument("--day", required=True)
options = parser.parse_args()
total: Counter[str] = Counter()
for part in json.loads(os.environ["PARTS"]):
    total.update(json.loads(Path(part).read_text()))
with sqlite3.connect(options.destination) as warehouse:
    warehouse.execute("CREATE TABLE IF NOT EXISTS zones (day TEXT, country TEXT, zones INTEGER)")
    warehouse.execute("DELETE FROM zones WHERE day = ?", (options.day,))
    warehouse.executemany("INSERT INTO zones VALUES (?, ?, ?)", [(options.day, *row) for row in sorted(total.items())])
Path(os.environ["HASCHED_OUTPUT"]).write_text(json.dumps({"countries": len(total), "zones": total.total()}))
