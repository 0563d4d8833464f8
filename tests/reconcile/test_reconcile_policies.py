"""A policy of the user's runs in a process of its own; whatever it does, there is an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from serveconf.plan.scaling import Answer
from serveconf.plan.state import DesiredDeployment
from serveconf.reconcile import policies as policies_module
from serveconf.reconcile.policies import Policies

pytestmark = pytest.mark.anyio

CODE = """
import os, sys, time
print("imported")

def busy(context):
    print("asked of", context.deployment)
    return context.ongoing // 4 + context.min_replicas

async def later(context):
    return 3

def broken(context):
    return 1 // 0

def odd(context):
    return "many"

def sleeps(context):
    time.sleep(60)

def exits(context):
    os._exit(3)

def counts(context, seen=[]):
    seen.append(context)
    return len(seen)

def named(context):
    return int(os.environ["COUNT"])

not_callable = 5
"""
CONTEXT = {"stack": "shop", "deployment": "cart", "replicas": 2, "ongoing": 20, "min_replicas": 1}


@pytest.fixture
async def policies(tmp_path: Path) -> AsyncIterator[Policies]:
    (tmp_path / "scaling.py").write_text(CODE)

    async def folder(digest: str) -> Path:
        return tmp_path

    made = Policies(folder)
    yield made
    await made.close()


def cart(policy: str, **more: Any) -> DesiredDeployment:
    spec = {"autoscaling_config": {"policy": policy}, **more}
    return DesiredDeployment(name="cart", prefix="/cart", num_replicas=1, version="v", code="c", spec=spec)


@pytest.mark.parametrize(
    ("policy", "answer"),
    [
        ("scaling:busy", Answer(number=6)),
        ("scaling:later", Answer(number=3)),
        ("scaling:broken", Answer(failure="ZeroDivisionError: integer division or modulo by zero")),
        ("scaling:odd", Answer(failure="it answered 'many', which is no number of replicas")),
        ("scaling:exits", Answer(failure="its process ended")),
        ("scaling:not_callable", Answer(failure="scaling:not_callable is not callable")),
    ],
)
async def test_an_answer_or_what_it_failed_of(policies: Policies, policy: str, answer: Answer) -> None:
    assert await policies.ask("shop", cart(policy), CONTEXT) == answer


async def test_what_cannot_be_imported_is_said(policies: Policies) -> None:
    answer = await policies.ask("shop", cart("nowhere:rule"), CONTEXT)
    assert answer.number is None and "nowhere" in answer.failure


async def test_its_process_lives_on_between_questions(policies: Policies) -> None:
    assert [(await policies.ask("shop", cart("scaling:counts"), CONTEXT)).number for _ in range(3)] == [1, 2, 3]


async def test_it_has_the_variables_of_its_deployment(policies: Policies) -> None:
    options = {"runtime_env": {"env_vars": {"COUNT": "8"}}}
    assert (await policies.ask("shop", cart("scaling:named", ray_actor_options=options), CONTEXT)).number == 8


async def test_what_takes_too_long_is_killed_and_tried_again_later(
    policies: Policies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies_module, "IMPORT_S", 1.5)
    monkeypatch.setattr(policies_module, "LIMIT_S", 0.1)
    answer = await policies.ask("shop", cart("scaling:sleeps"), CONTEXT)
    assert answer.failure == "it took longer than 0.1 s"
    assert (await policies.ask("shop", cart("scaling:sleeps"), CONTEXT)).failure == "it failed, and is tried again soon"
