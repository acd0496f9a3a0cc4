"""A program that looks when it is told to: `look SECONDS` on a line, the look as JSON back.

It runs in a process of its own, whose library of NVML is the stub. The seconds are a clock's.
"""

import json
import sys
from pathlib import Path

from hutch.agent.watch import Watch
from hutch.logs import configure_logs


def main(root: str) -> None:
    configure_logs("info", "json")
    now = 0.0
    watch = Watch(root=Path(root), clock=lambda: now)
    for line in sys.stdin:
        now = float(line.split()[1])
        found, readings = watch.look()
        told = {
            "found": {each.address: each.as_dict() for each in found},
            "readings": {each.address: each.as_dict() for each in readings},
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
