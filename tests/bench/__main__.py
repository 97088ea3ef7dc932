"""Every benchmark that has a bar, one after the other: `python -m tests.bench [NAME …]`, some 15 minutes for all.

Ends with the names of those that missed one, and exit status 1 where there are any. `soak.py` is for itself.
"""

import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = (
    *(
        "inprocess",
        "served",
        "stores",
        "nginx",
        "footprint",
        "slow",
        "pending",
        "crowd",
        "closed",
        "dripping",
        "million",
    ),
    *("owners_table", "picture"),  # the last one has no bar: it draws what two of the others found
)
AS_MODULE = {"dripping"}


def command(name):
    return ["-m", f"tests.bench.{name}"] if name in AS_MODULE else [str(FOLDER / f"{name}.py")]


def run(name):
    """Whether all bars of the benchmark hold, as its exit status says."""
    print(f"\n## {name}\n", flush=True)
    begun = time.monotonic()
    status = subprocess.run([sys.executable, *command(name)], cwd=FOLDER.parents[1], check=False).returncode
    print(f"\n{name}: {'all bars hold' if not status else f'status {status}'}, {time.monotonic() - begun:.0f} s")
    return status == 0


def main(names):
    unknown = set(names).difference(NAMES)
    if unknown:
        raise SystemExit(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    missed = [name for name in names or NAMES if not run(name)]
    print(f"\nMissed: {', '.join(missed)}" if missed else "\nAll bars hold.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
