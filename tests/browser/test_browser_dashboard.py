"""The dashboard as somebody sees it: a rollout that moves, the way back with its plan first, what users named stays inert."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from stage import Stage

from serveconf.admin.keys import Keys
from serveconf.admin.sessions import Role, Sessions
from serveconf.reconcile.journal import EventKind
from serveconf.reconcile.ports import TargetReport

WEB = {"name": "web", "import_path": "web:app", "route_prefix": "/", "num_replicas": 3}
BETA = {"name": "beta", "import_path": "beta:app", "route_prefix": "/", "match": {"headers": {"x-beta": "1"}}}
HOSTILE = "<img src=x onerror=document.title='taken'>"


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as expected

    return expected(locator)


def go_to(page: Any, name: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=name).click()


def test_a_rollout_is_watched_and_taken_back_after_a_look_at_its_plan(page: Any, stage: Stage) -> None:
    stage.apply(WEB)
    row = page.locator(".row", has_text="web")
    expect(row.locator(".dot.Ready")).to_have_count(3)
    stage.hold()
    stage.begin(WEB, code="2")
    expect(row.locator(".dot.Starting")).to_have_count(3)
    expect(row).to_contain_text("Progressing")
    stage.let_go()
    expect(row.locator(".dot.Starting")).to_have_count(0)
    expect(row).to_contain_text("Healthy")

    go_to(page, "Revisions")
    page.get_by_role("button", name="1", exact=True).click()
    page.get_by_role("button", name="Roll back to this").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("tbody tr")).to_contain_text(["web"])
    expect(dialog).to_contain_text("roll")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog).to_contain_text("applied")
    dialog.get_by_role("button", name="Close").click()
    assert stage.plane.ledger.heads["shop"].current == 3
    assert stage.plane.ledger.heads["shop"].pinned
    expect(page.locator("tbody tr").first).to_contain_text("dashboard")
    expect(page.locator("tbody tr").first.locator("code")).to_contain_text("browser:")
    go_to(page, "Events")
    expect(page.locator(".events")).to_contain_text("revision 3 is being applied by dashboard")


def test_who_signs_in_is_told_in_the_events(page: Any, stage: Stage) -> None:
    go_to(page, "Events")
    expect(page.locator(".events")).to_contain_text("a browser was signed in to the dashboard, which may change things")


def test_a_plan_that_is_out_of_date_rolls_nothing_back(page: Any, stage: Stage) -> None:
    stage.apply(WEB)
    stage.apply(WEB, code="2")
    go_to(page, "Revisions")
    page.get_by_role("button", name="1", exact=True).click()
    page.get_by_role("button", name="Roll back to this").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Roll back")).to_be_enabled()
    stage.apply(WEB, code="3")
    with page.expect_response(lambda answer: answer.url.endswith("/rollback")) as answered:
        dialog.get_by_role("button", name="Roll back").click()
    assert answered.value.status == 412
    expect(dialog).to_contain_text("is at revision 3")


def test_who_takes_a_request_is_tried_with_its_headers(page: Any, stage: Stage) -> None:
    stage.apply(WEB, BETA)
    go_to(page, "Routes")
    page.get_by_label("Path").fill("/items/7")
    trial = page.locator(".card", has_text="Try it")
    expect(trial).to_contain_text("shop/web takes it")
    page.get_by_label("Headers").fill("x-beta: 1")
    expect(trial).to_contain_text("shop/beta takes it")
    expect(page.locator("tr.found")).to_contain_text("shop/beta")
    page.get_by_label("Headers").fill("x-beta: 2")
    expect(trial).to_contain_text("header x-beta is '2', not '1'")


def test_the_log_of_a_deployment_is_followed(page: Any, stage: Stage) -> None:
    stage.apply(WEB)
    replica = stage.cluster.observe().replicas[0].id
    page.get_by_role("link", name="web", exact=True).click()
    log = page.get_by_role("log")
    expect(log).to_contain_text(f"hello from {replica}")
    stage.cluster.lines[replica] = ["hello", "a second line", HOSTILE]
    expect(log).to_contain_text("a second line")
    expect(log).to_contain_text(HOSTILE)
    expect(page).to_have_title("shop/web · serveconf")


def test_a_deployment_s_page_says_why_it_is_as_it_is_and_one_that_is_not_there_is_empty(
    page: Any, stage: Stage
) -> None:
    web = {key: value for key, value in WEB.items() if key != "num_replicas"}
    stage.preflight.reports["web:app"] = TargetReport(ok=True, kind="asgi", operations=("GET /items/{item}",))
    stage.apply({**web, "autoscaling_config": {"min_replicas": 2, "max_replicas": 4}})
    page.get_by_role("link", name="web", exact=True).click()
    expect(page.locator(".told")).to_contain_text("2 of 2 to 4 replicas: ")
    expect(page.locator(".events")).to_contain_text("revision 1 is applied")
    expect(page.get_by_role("group", name="Replica,").get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("group", name="Method,").get_by_role("row").nth(1)).to_contain_text("GET")
    expect(page.locator(".operations li")).to_have_text("GET /items/{item}")
    page.goto(f"{stage.url}/#/deployments/shop/other")
    expect(page.locator("#page")).to_contain_text("There is no such deployment")
    expect(page.locator(".card:visible")).to_have_count(0)


def test_every_page_says_that_nothing_moves_while_ray_is_silent(page: Any, stage: Stage) -> None:
    stage.apply(WEB)
    stage.cluster.silent_s = 75.0
    expect(page.get_by_role("alert")).to_contain_text("Ray's GCS has not answered for 1 min. Nothing is applied")
    go_to(page, "Nodes")
    expect(page.get_by_role("alert")).to_be_visible()
    stage.cluster.silent_s = None
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_revisions_follow_an_apply_and_the_one_that_is_looked_at_stays(page: Any, stage: Stage) -> None:
    stage.apply(WEB)
    stage.apply(WEB, BETA)
    go_to(page, "Revisions")
    page.get_by_role("button", name="1", exact=True).click()
    expect(page.get_by_role("heading", name="Revision 1")).to_be_visible()
    stage.apply(WEB, code="2")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("tr.chosen")).to_contain_text("1 created")
    expect(page.get_by_role("heading", name="Revision 1")).to_be_visible()
    page.get_by_role("button", name="3", exact=True).click()
    expect(page.get_by_role("group", name="Difference of the spec to revision 2")).to_contain_text("- name: beta")


def test_an_apply_that_came_to_nothing_stands_out(page: Any, stage: Stage) -> None:
    stage.apply(WEB)
    failed = {"kind": EventKind.APPLY, "stack": "shop", "message": "revision 2 was taken back: it died"}
    stage.do(stage.note(**failed, data={"code": "replica_failed"}))
    go_to(page, "Events")
    expect(page.locator(".events li", has_text="was taken back").locator(".badge.bad")).to_have_text("apply")
    expect(page.locator(".events li", has_text="is applied").locator(".badge.good")).to_have_text("apply")


def test_whoever_may_only_look_is_offered_no_way_back(browser: Any, stage: Stage) -> None:
    stage.apply(WEB)
    stage.apply(WEB, code="2")
    sessions = Sessions(Keys("secret"), name=f"serveconf_{urlsplit(stage.url).port}")
    session = sessions.sign_in(sessions.invite(Role.READ))
    assert session is not None
    context = browser.new_context()
    context.set_default_timeout(120_000)
    context.add_cookies([{"name": sessions.name, "value": session, "url": f"{stage.url}/api/v1"}])
    context.add_init_script(f"localStorage.setItem('serveconf-key', '{sessions.key(session)}')")
    page = context.new_page()
    page.goto(f"{stage.url}/#/revisions")
    page.get_by_role("button", name="1", exact=True).click()
    expect(page.get_by_role("heading", name="Revision 1")).to_be_visible()
    expect(page.get_by_role("button", name="Roll back to this")).to_be_hidden()
    context.close()


@pytest.mark.parametrize("path", ["#/", "#/deployments/shop/web", "#/routes", "#/revisions", "#/nodes", "#/events"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Any, stage: Stage, path: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    stage.apply(WEB, BETA)
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{stage.url}/{path}")
    page.wait_for_selector("#page .card, #page .row")
    # the page's policy lets no foreign script in; the checker is brought by the browser itself
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_every_page_fits_its_width(page: Any, stage: Stage, width: int) -> None:
    stage.apply(WEB, BETA)
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("#/", "#/deployments/shop/web", "#/routes", "#/revisions", "#/nodes", "#/events"):
        page.goto(f"{stage.url}/{path}")
        page.wait_for_selector("#page .card, #page .row")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, path
