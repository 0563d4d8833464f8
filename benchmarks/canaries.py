"""How often a canary is judged wrongly, and how soon rightly: simulated, by the judgement that the controller uses.

    python benchmarks/canaries.py [COUNT]

Each canary goes through the default steps of 5, 25 and 50 %, 100 requests/s, looked at twice a second.
"""

from __future__ import annotations

import sys

import numpy as np

from serveconf.plan.canary import CanaryRule, Evidence, Side, bucket_of, look, why_worse

RULE = CanaryRule(steps=(5, 25, 50), step_s=30, max_error_rate=0.05, max_latency_ratio=1.5)
PER_LOOK, LOOKS_PER_STEP = 50, 60
MOST_OF_NEW = 200  # answers of the new version within which a bad one should be caught


def side(random: np.random.Generator, given: int, error_rate: float, slower: float) -> Side:
    """What a version answers in one look; its latencies are lognormal, with a long tail."""
    slowness: tuple[int, ...] = ()
    if slower and given:
        seconds = random.lognormal(-4.0, 0.8, given) * slower
        slowness = tuple(np.bincount([bucket_of(one) for one in seconds], minlength=145).tolist())
    return Side(given=given, failed=int(random.binomial(given, error_rate)), slowness=slowness)


def run(random: np.random.Generator, old: float, new: float, slower: float = 0.0) -> tuple[int | None, int]:
    """Answers of the new version until it was taken back (None: it was not), and of both."""
    evidence = Evidence()
    for step in RULE.steps:
        for _ in range(LOOKS_PER_STEP):
            mine = round(PER_LOOK * step / 100 + random.uniform(-0.5, 0.5))
            one = side(random, PER_LOOK - mine, old, 1.0 if slower else 0.0)
            evidence = look(evidence, one, side(random, mine, new, slower), RULE)
            if why_worse(evidence, RULE):
                return evidence.new.given, evidence.new.given + evidence.old.given
    return None, evidence.new.given + evidence.old.given


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    random = np.random.default_rng(4711)
    print(f"{'old → new errors, latency':<34}{'canaries':>9}{'taken back':>12}{'within 200':>12}{'median of new':>15}")
    for name, old, new, slower, share in (
        ("0.1 % → 0.1 %", 0.001, 0.001, 0.0, 1.0),
        ("2 % → 2 %", 0.02, 0.02, 0.0, 1.0),
        ("10 % → 10 %", 0.1, 0.1, 0.0, 1.0),
        ("0 % → 10 %", 0.0, 0.1, 0.0, 0.1),
        ("1 % → 11 %", 0.01, 0.11, 0.0, 0.1),
        ("5 % → 15 %", 0.05, 0.15, 0.0, 0.1),
        ("0 % → 20 %", 0.0, 0.2, 0.0, 0.1),
        ("as slow as the old one", 0.001, 0.001, 1.0, 0.1),
        ("twice as slow", 0.001, 0.001, 2.0, 0.02),
        ("four times as slow", 0.001, 0.001, 4.0, 0.02),
    ):
        runs = max(1, int(count * share))
        caught = [run(random, old, new, slower)[0] for _ in range(runs)]
        back = [one for one in caught if one is not None]
        soon = sum(one <= MOST_OF_NEW for one in back)
        median = f"{np.median(back):.0f}" if back else "-"
        print(f"{name:<34}{runs:>9}{len(back) / runs:>11.2%} {soon / runs:>11.1%} {median:>14}", flush=True)


if __name__ == "__main__":
    main()
