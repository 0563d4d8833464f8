"""How well numbers of replicas follow six loads: serveconf's decision against models of Ray Serve's and Knative's, simulated.

    python benchmarks/autoscaling.py                 the table
    python benchmarks/autoscaling.py --plots DIR     ... and a plot of each load
    python benchmarks/autoscaling.py --signal        what reports and decisions cost the controller, up to 1,000 proxies

Requests come by chance at the load's rate and take a lognormal time. All three have the same target, the same limit of
requests per replica, one line of waiting requests, and replicas that take two seconds to start. The models are written
from the public documentation of the two; everything else about them is left out, in their favour.
"""

from __future__ import annotations

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from autoscaling_loads import LOADS, requests_of
from autoscaling_models import SCALERS
from autoscaling_signal import signal
from autoscaling_world import TARGET, Point, simulate


@dataclass
class Row:
    load: str
    scaler: str
    waiting_s: float
    replica_s: float
    most: int
    changes: int
    curve: list[Point]


def run(load: str, scaler: str, seed: int = 1) -> Row:
    world, curve = simulate(requests_of(load, seed), LOADS[load][1], SCALERS[scaler]())
    changes = sum(one[2] != other[2] for one, other in itertools.pairwise(curve))
    return Row(load, scaler, world.waiting_s, world.replica_s, world.most, changes, curve)


def table(rows: list[Row]) -> None:
    print(f"{'load':<8}{'':<18}{'request-s waited':>17}{'replica-s':>11}{'most':>6}{'changes':>9}")
    for row in rows:
        name = row.load if row.scaler == "serveconf" else ""
        print(
            f"{name:<8}{row.scaler:<18}{row.waiting_s:>17,.0f}{row.replica_s:>11,.0f}{row.most:>6}{row.changes:>9}",
            flush=True,
        )


# plots


COLOURS = {"serveconf": "#0a7d4f", "Knative": "#c2571a", "Ray Serve": "#5b5bd6"}
WIDTH, HEIGHT, EDGE = 860, 260, 42


def plot(load: str, rows: list[Row], file: Path) -> None:
    """Replicas over time, above what the load would need at the target."""
    seconds = LOADS[load][1]
    shown = [row for row in rows if row.scaler in COLOURS]
    top = max(max(point[2] for point in row.curve) for row in shown) * 1.05
    rate = LOADS[load][0]()

    def at(now: float, value: float) -> str:
        x = EDGE + now / seconds * (WIDTH - EDGE - 10)
        y = HEIGHT - 24 - value / top * (HEIGHT - 50)
        return f"{x:.1f},{y:.1f}"

    needed = [at(now, rate(now) / TARGET) for now in range(0, int(seconds), max(1, int(seconds / 600)))]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<polygon points="{at(0, 0)} {" ".join(needed)} {at(seconds, 0)}" fill="#e3e3e3"/>',
    ]
    for value in range(0, int(top) + 1, 10 if top < 70 else 20):
        x, y = at(0, value).split(",")
        parts.append(
            f'<text x="{float(x) - 6:.0f}" y="{float(y) + 4:.0f}" text-anchor="end" fill="#555">{value}</text>'
        )
    for index, row in enumerate(shown):
        points, before = [], -1
        for now, _, number, _ in row.curve:
            if number != before:
                points += [at(now, max(before, 0) if before >= 0 else number), at(now, number)]
                before = number
        points.append(at(seconds, before))
        colour = COLOURS[row.scaler]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        said = f"{row.scaler}: {row.waiting_s:,.0f} request-s waited, {row.replica_s:,.0f} replica-s"
        parts.append(f'<text x="{EDGE + index * 270}" y="14" fill="{colour}">{said}</text>')
    parts.append(f'<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end" fill="#555">{seconds:.0f} s</text></svg>')
    file.write_text("\n".join(parts) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--signal", action="store_true")
    parser.add_argument("--loads", nargs="*", default=list(LOADS))
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if asked.signal:
        signal()
        return
    with ProcessPoolExecutor(2) as pool:
        found = {
            (load, scaler): pool.submit(run, load, scaler, asked.seed) for load in asked.loads for scaler in SCALERS
        }
        rows = [one.result() for one in found.values()]
    table(rows)
    if asked.plots:
        asked.plots.mkdir(parents=True, exist_ok=True)
        for load in asked.loads:
            plot(load, [row for row in rows if row.load == load], asked.plots / f"{load}.svg")


if __name__ == "__main__":
    main()
