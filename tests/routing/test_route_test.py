"""``routes --test``: who takes a request, in words."""

from __future__ import annotations

import pytest

from serveconf.cli.status_view import render_verdict
from serveconf.errors import AuthorError
from serveconf.route_test import judge_request
from serveconf.routing import Generation, Route, as_match


def route(name, prefix, **match):
    return Route(prefix=prefix, stack="s", deployment=name, match=as_match(match))


TABLE = Generation(
    number=1,
    routes=(
        route("landing", "/"),
        route("shop", "/shop", hosts=["shop.example"]),
        route("beta", "/shop", hosts=["shop.example"], headers={"x-beta": "1"}),
        route("orders", "/orders", methods=["POST"]),
    ),
)


def test_the_one_who_takes_it_and_why_not_the_others():
    verdict = judge_request(TABLE, "GET", "https://shop.example/shop/cart", [("X-Beta", "1")])
    assert (verdict.status, verdict.stack, verdict.deployment) == (None, "s", "beta")
    assert verdict.rule == "shop.example/shop x-beta: 1"
    assert verdict.why == "before 'shop': more headers"
    assert [(other.deployment, other.why) for other in verdict.others] == [
        ("shop", "fits, but 'beta' has more headers"),
        ("landing", "fits, but 'beta' has a more specific host"),
    ]


def test_what_a_request_lacks_is_said():
    verdict = judge_request(TABLE, "GET", "/shop", [("host", "shop.example"), ("x-beta", "2")])
    assert verdict.deployment == "shop"
    assert ("beta", "header x-beta is '2', not '1'") in [(other.deployment, other.why) for other in verdict.others]
    elsewhere = judge_request(TABLE, "GET", "/shop")
    assert elsewhere.deployment == "landing"
    assert [other.why for other in elsewhere.others] == ["it is for other hosts"] * 2


def test_nobody_takes_it():
    only = Generation(number=1, routes=TABLE.routes[3:])
    assert judge_request(only, "GET", "/").status == 404
    verdict = judge_request(only, "GET", "/orders/1")
    assert (verdict.status, verdict.why) == (405, "only POST is taken there")
    with pytest.raises(AuthorError, match="no URL and no path"):
        judge_request(only, "GET", "orders")


def test_it_reads_as_a_sentence_and_a_table():
    from serveconf.admin.models import VerdictModel

    verdict = judge_request(TABLE, "POST", "/orders")
    assert render_verdict(VerdictModel.model_validate(verdict, from_attributes=True).model_dump()) == (
        "orders takes it by /orders POST: before 'landing': a longer prefix\n\n"
        "NOT      RULE  WHY\n"
        "landing  /     fits, but 'orders' has a longer prefix"
    )
