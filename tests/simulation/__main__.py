import sys, time
from collections import Counter
from tests.simulation.simulation import Simulation

if len(sys.argv) > 2:
    s = Simulation(int(sys.argv[2]), is_traced=True)
    b = s.run()
    print("\n".join(s.trace))
    print(s.plan.kind, b)
    raise SystemExit
n = sys.argv[1]
a, _, b = n.partition("-")
r = range(int(a), int(b)) if b else range(int(a))
t = time.perf_counter()
found = Counter()
first = {}
for seed in r:
    s = Simulation(seed)
    broken = s.run()
    for p in broken[:1]:
        k = (s.plan.kind, p.split(":")[0])
        found[k] += 1
        first.setdefault(k, []).append((seed, p))
el = time.perf_counter() - t
print(len(r) / el, "/s")
for k, c in sorted(found.items()):
    print(c, k, first[k][:3])
