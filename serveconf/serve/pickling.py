"""Objects as bytes, by value: what a script defines, and what it names of itself, travels with it."""

from __future__ import annotations

import hashlib
import io
from collections import ChainMap
from types import FunctionType
from typing import Any

from serveconf.errors import AuthorError
from serveconf.ingress.by_value import REDUCERS


def pickled(name: str, target: object) -> bytes:
    """``target`` by value. Raises AuthorError with what in it cannot be pickled."""
    buffer = io.BytesIO()
    try:
        _pickler_class()(buffer).dump(target)
    except Exception as error:  # pickling runs user code: it may raise anything
        raise AuthorError(
            f"{name} cannot travel by value: {type(error).__name__}: {error}",
            hint="put it into a module of its own and import that: then the replicas import it too",
        ) from error
    return _with_stable_ids(buffer.getvalue())


def _with_stable_ids(data: bytes) -> bytes:
    """cloudpickle marks each class with a random id; a script that is run again should give the bytes that it gave before."""
    from ray.cloudpickle import cloudpickle

    known = [text.encode() for text in list(cloudpickle._DYNAMIC_CLASS_TRACKER_BY_CLASS.values())]
    used = sorted((mark for mark in known if mark in data), key=data.index)
    for number, mark in enumerate(used):
        data = data.replace(mark, b"%032d" % number)
    content = hashlib.sha256(data).hexdigest()[:24].encode()
    for number in range(len(used)):
        data = data.replace(b"%032d" % number, content + b"%08d" % number)
    return data


def _pickler_class() -> Any:
    from ray.cloudpickle import CloudPickler  # here: importing Ray takes its time, and what is imported needs none

    class Pickler(CloudPickler):
        dispatch_table = ChainMap({**REDUCERS}, CloudPickler.dispatch_table)  # noqa: RUF012 - looked up on the class alone

        def _dynamic_function_reduce(self, func: FunctionType) -> Any:
            """A function takes the globals along that its body names. FastAPI evaluates its annotations where it arrives."""
            reduced = super()._dynamic_function_reduce(func)  # type: ignore[no-untyped-call]
            _, slots = reduced[2]
            for name in sorted(_named_in_annotations(func)):
                slots["__globals__"].setdefault(name, func.__globals__[name])
            return reduced

    return Pickler


def _named_in_annotations(func: FunctionType) -> set[str]:
    """Globals that annotations name where these are strings (``from __future__ import annotations``)."""
    names: set[str] = set()
    for annotation in func.__annotations__.values():
        if isinstance(annotation, str):
            try:
                names |= set(compile(annotation, "<annotation>", "eval").co_names)
            except SyntaxError:  # not meant as a type
                continue
    return names & func.__globals__.keys()
