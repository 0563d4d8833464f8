"""Uploads wait for room, unread, and are refused where none comes free."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from serveconf.admin.uploads import MAX_PACKAGE_BYTES, Uploads
from serveconf.errors import AuthorError, NoRoom

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Upload:
    """A body of ten bytes that comes when it is let."""

    def __init__(self, *, announced: int | None = 10) -> None:
        headers = [] if announced is None else [(b"content-length", str(announced).encode())]
        scope = {"type": "http", "method": "PUT", "headers": headers, "path": "/", "query_string": b""}
        self.request = Request(scope, self.receive)
        self.begun, self.let = asyncio.Event(), asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        self.begun.set()
        await self.let.wait()
        return {"type": "http.request", "body": b"0123456789", "more_body": False}


async def test_an_upload_without_room_is_not_read_until_another_one_is_done() -> None:
    uploads, (first, second) = Uploads(at_once=15), (Upload(), Upload())
    one = asyncio.create_task(uploads.take(first.request))
    await first.begun.wait()
    two = asyncio.create_task(uploads.take(second.request))
    second.let.set()
    await asyncio.sleep(0.05)
    assert not second.begun.is_set()
    first.let.set()
    assert await one == await two == b"0123456789"


async def test_one_that_gets_no_room_is_refused_and_the_others_go_on() -> None:
    uploads, (first, second, third) = Uploads(at_once=15, wait_s=0.05), (Upload(), Upload(), Upload())
    one = asyncio.create_task(uploads.take(first.request))
    await first.begun.wait()
    with pytest.raises(NoRoom) as refused:
        await uploads.take(second.request)
    assert refused.value.code == "uploads_full"
    one.cancel()  # its client has gone away: the room is free again
    third.let.set()
    assert await uploads.take(third.request) == b"0123456789"


async def test_what_is_too_large_or_larger_than_it_said_is_refused() -> None:
    for upload in (Upload(announced=MAX_PACKAGE_BYTES + 1), Upload(announced=5)):
        upload.let.set()
        with pytest.raises(AuthorError) as refused:
            await Uploads().take(upload.request)
        assert refused.value.code == "code_too_large"


async def test_one_that_does_not_say_how_large_it_is_counts_as_the_largest() -> None:
    uploads, upload = Uploads(at_once=MAX_PACKAGE_BYTES - 1, wait_s=0.05), Upload(announced=None)
    with pytest.raises(NoRoom):
        await uploads.take(upload.request)
