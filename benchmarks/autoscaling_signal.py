"""What reports of the load, and decisions by them, cost the controller, up to 1,000 proxies and 10,000 deployments."""

from __future__ import annotations

import time

import msgspec

from serveconf.figures import DeploymentLoad, LoadReport
from serveconf.plan.scaling import Fleet, Past, Rule, decide
from serveconf.reconcile.loads import Loads


def signal() -> None:
    """Reports of so many proxies, a tenth of the deployments busy, each at up to ten of the proxies; one simulated minute."""
    print(f"{'proxies':>8}{'deployments':>13}{'reports/s':>11}{'kB/s':>8}{'decisions/s':>13}{'of one core':>13}")
    for proxies, deployments in ((1, 10), (10, 100), (100, 1000), (1000, 10000)):
        slower = max(1.0, proxies / 100)
        busy = [f"shop/d{n}" for n in range(max(1, deployments // 10))]
        at = {
            p: [busy[n] for n in range(len(busy)) if p in {(n * 7 + k * 13) % proxies for k in range(10)}]
            for p in range(proxies)
        }
        loads, rule = Loads(), Rule(max_replicas=50)
        past = dict.fromkeys(busy, Past())
        seconds, size, reports, decisions, spent = 20, 0, 0, 0, 0.0
        every, decided = 0.25 * slower, dict.fromkeys(busy, -1.0)
        for tick in range(int(seconds / every)):
            now = 100 + tick * every
            for proxy, names in at.items():
                said = {name: DeploymentLoad(5 * tick, 5 * tick, tick * 1.0, 4, 0, 4 * now, 0.0, 0.0) for name in names}
                data = msgspec.msgpack.encode(LoadReport(number=tick + 1, time=now, loads=said))
                size += len(data)
                reports += 1
                began = time.perf_counter()
                report = msgspec.msgpack.decode(data, type=LoadReport)
                for name in loads.take(f"p{proxy}", report, now, slower=slower):
                    if now - decided[name] >= 0.25:
                        decided[name] = now
                        decisions += 1
                        fleet = Fleet(number=4, ready=4)
                        _, past[name] = decide(rule, past[name], loads.sample(name, now), fleet, wall=now)
                spent += time.perf_counter() - began
        print(
            f"{proxies:>8}{deployments:>13}{reports / seconds:>11,.0f}{size / seconds / 1000:>8,.0f}"
            f"{decisions / seconds:>13,.0f}{spent / seconds:>12.1%}",
            flush=True,
        )
