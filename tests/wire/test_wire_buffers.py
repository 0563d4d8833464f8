"""The memory that raw data is read into: never given to two at a time, and given again when it is free."""

from __future__ import annotations

import threading

from serveconf.wire.buffers import frames_buffer, raw_buffer


def in_thread(call):
    """What ``call`` returns in a thread of its own, whose memory is still untouched."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_what_someone_holds_is_not_given_to_another():
    def hold_many():
        held = []
        for number in range(40):  # more than are kept
            view = raw_buffer(300_000)
            view[:] = bytes([number]) * 300_000
            held.append(view[10:20])
        return [bytes(view) for view in held]

    assert in_thread(hold_many) == [bytes([number]) * 10 for number in range(40)]


def test_what_is_free_is_given_again():
    def again():
        first = raw_buffer(500_000)
        where = id(first.obj)
        part = first[5:]
        del first
        other = raw_buffer(400_000)
        del part
        return where, id(other.obj), id(raw_buffer(500_000).obj)

    where, other, again_there = in_thread(again)
    assert other != where
    assert again_there == where


def test_size_is_what_was_asked_for_even_if_it_is_large():
    assert [len(raw_buffer(size)) for size in (1, 512 << 10, 3 << 20)] == [1, 512 << 10, 3 << 20]


def test_small_data_holds_no_large_buffer():
    assert len(raw_buffer(40_000).obj) == 40_000


def test_threads_share_nothing():
    assert in_thread(lambda: id(frames_buffer().obj)) != id(frames_buffer().obj)
    mine = raw_buffer(500_000)
    assert in_thread(lambda: id(raw_buffer(500_000).obj)) != id(mine.obj)
