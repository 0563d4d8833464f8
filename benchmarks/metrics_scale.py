"""What one scrape costs the controller where there are many routes.

    .venv/bin/python benchmarks/metrics_scale.py --routes 1000

Prints the seconds of collecting and rendering (best of several), and the size of the text.
"""

from __future__ import annotations

import argparse
import time

from serveconf.admin.metrics import Moment, families, render
from serveconf.figures import DeploymentFigures, ProxyFigures
from serveconf.plan.state import Observed
from serveconf.reconcile.kept_figures import KeptFigures


def answered() -> DeploymentFigures:
    """A deployment that answers GETs, and sometimes fails."""
    figures = DeploymentFigures()
    figures.duration("GET", 200).observe(0.003)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--routes", type=int, default=1000)
    routes = parser.parse_args().routes
    kept = KeptFigures()
    for worker in ("n-0", "n-1"):
        kept.saw_proxy(worker, ProxyFigures(deployments={f"shop/d{i}": answered() for i in range(routes)}))
    best, text = float("inf"), b""
    for _ in range(7):
        began = time.perf_counter()
        text = render(families(kept, Moment(observed=Observed())))
        best = min(best, time.perf_counter() - began)
    print(f"{routes} routes, two workers: {best:.2f} s, {len(text):,} bytes")


if __name__ == "__main__":
    main()
