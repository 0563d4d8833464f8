"""The live views: figures beside the states, events counted up in place, and no more lines than the screen has."""

from __future__ import annotations

from typing import Any

import pytest
from test_status_view import deployment, replica, status

from serveconf.cli.events_view import EventList
from serveconf.cli.live_view import LiveStatus, sparkline


def event(message: str, *, second: int = 0, first: int | None = None, count: int = 1) -> dict[str, Any]:
    def time(at: int) -> str:
        return f"2026-01-31T08:00:{at:02}.000+00:00"

    data = {} if first is None else {"first": time(first)}
    return {
        "time": time(second),
        "kind": "heal",
        "stack": "shop",
        "deployment": "catalog",
        "message": message,
        "data": data,
        "count": count,
    }


def live(*replicas: dict[str, Any]) -> LiveStatus:
    view = LiveStatus()
    view.take("status", status(deployment("catalog", "Healthy", list(replicas) or [replica("catalog-1")])))
    return view


def test_figures_stand_beside_the_state_and_the_curve_grows() -> None:
    view = live()
    view.take("curves", {"points": {"shop/catalog": [[10.0, 0.0, 1.2, 8.0, 1, 0]]}})
    view.take("points", {"shop/catalog": [80.0, 2.5, 3.4, 1250.0, 4, 7]})
    assert view.lines(40)[:5] == [
        "generation 12  1/1 proxies",
        "",
        "Stack shop: Healthy, revision 3",
        "  DEPLOYMENT  STATE    READY  REQ/S                        P50     P99    ERR/S  ACTIVE  WAITING",
        "  catalog     Healthy  1/1    80                       ▂█  3.4 ms  1.2 s  2.5    4       7",
    ]


@pytest.mark.parametrize(
    ("width", "row"),
    [
        (109, "  recommendations  Healthy  1/1    80                       ██  3.4 ms  1.2 s  2.5    4       7"),
        (100, "  recommendations  Healthy  1/1    80             ██  3.4 ms  1.2 s  2.5    4       7"),
        (80, "  recommendations  Healthy  1/1    80     3.4 ms  1.2 s  2.5    4       7"),
        (72, "  recommendat…  Healthy  1/1    80     3.4 ms  1.2 s  2.5    4       7"),
    ],
)
def test_on_a_narrow_screen_the_curve_goes_first_then_the_end_of_a_name_and_no_figure(width: int, row: str) -> None:
    view = LiveStatus()
    view.take("status", status(deployment("recommendations", "Healthy", [replica("r-1")])))
    for _ in range(2):
        view.take("points", {"shop/recommendations": [80.0, 2.5, 3.4, 1250.0, 4, 7]})
    assert view.lines(40, width)[4] == row


def test_a_deployment_that_nobody_asks_for_falls_to_nothing() -> None:
    view = live()
    view.take("points", {"shop/catalog": [80.0, 0.0, 3.4, 9.0, 4, 0]})
    view.take("points", {})
    assert view.lines(40)[4].split() == ["catalog", "Healthy", "1/1", "0", "█", "-", "-", "0", "0", "0"]


def test_only_replicas_that_are_not_ready_are_named_and_only_where_there_is_room() -> None:
    view = live(replica("catalog-1"), replica("catalog-2", "Starting"))
    view.events.take(event("replica catalog-0 has ended"))
    assert [line.split()[0] for line in view.lines(40)[6:7]] == ["catalog-2"]
    assert "has ended" in view.lines(40)[-1]
    small = view.lines(8)
    assert len(small) == 8
    assert not any("catalog-2" in line for line in small)


def test_a_connection_that_is_lost_is_said() -> None:
    view = live()
    view.connected = False
    assert "not connected" in view.lines(40)[0]


def test_another_stack_is_left_out() -> None:
    view = LiveStatus(stack="blog")
    view.take("status", status(deployment("catalog", "Healthy", [])))
    assert not any("catalog" in line for line in view.lines(40))


def test_a_curve_is_as_high_as_its_highest() -> None:
    assert sparkline([0, 1, 4, 8]) == " ▂▅█"
    assert sparkline([0, 0]) == "  "


def test_an_event_that_is_counted_up_takes_the_place_of_what_it_was() -> None:
    shown = EventList()
    shown.take(event("replica a has ended", second=1))
    shown.take(event("is well again", second=2))
    shown.take(event("replica b has ended", second=3, first=1, count=2))
    shown.take(event("replica c has ended", second=4, first=1, count=3))
    lines = [line.partition("catalog  ")[2] for line in shown.lines(9)]
    assert lines == ["is well again", "replica c has ended (3 times in 3 s)"]
