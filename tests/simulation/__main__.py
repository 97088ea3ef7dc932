"""`python -m tests.simulation SEEDS` runs so many schedules, `FIRST-LAST` those; `0 SEED` tells one, event by event.

Exit status 1 where a promise was broken; a line for each kind of schedule and promise names the first seeds.
"""

import sys
import time

from tests.simulation.simulation import Simulation


def tell(seed):
    """Print what happens in one schedule."""
    simulation = Simulation(seed, is_traced=True)
    broken = simulation.run()
    print(*simulation.trace, simulation.plan.kind, *(broken or ["every promise held"]), sep="\n")
    return bool(broken)


def run(seeds):
    """Run the schedules, and print which promises were broken."""
    found, started = {}, time.perf_counter()
    for seed in seeds:
        simulation = Simulation(seed)
        for promise in simulation.run()[:1]:
            print(seed, simulation.plan.kind, promise, flush=True)
            found.setdefault((simulation.plan.kind, promise.partition(":")[0]), []).append((seed, promise))
    for (kind, promise), broken in sorted(found.items()):
        print(f"{len(broken)} x {kind}, {promise}: {broken[:3]}")
    rate = len(seeds) / (time.perf_counter() - started)
    print(f"{len(seeds):,} schedules, {rate:.0f} a second, {sum(map(len, found.values()))} of them broke a promise")
    return bool(found)


if __name__ == "__main__":
    first, _, last = sys.argv[1].rpartition("-")
    sys.exit(tell(int(sys.argv[2])) if len(sys.argv) > 2 else run(range(int(first or 0), int(last))))
