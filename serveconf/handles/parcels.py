"""Python objects as bodies of requests and answers: pickle protocol 5, large buffers beside the pickle and not inside.

::

    parcel := parts (u32, little-endian) | size (u64) of each | the pickle | buffer | buffer ...

Numpy arrays and the like are then never copied into the pickle, and arrive as views of the memory that they came in,
which is theirs alone. What plain pickle cannot take (lambdas, classes of a script) goes by value, with cloudpickle.
"""

from __future__ import annotations

import io
import pickle
import struct
from typing import Any

from serveconf.handles.errors import CallFailed

BESIDE_BYTES = 8 << 10  # a smaller buffer is cheaper inside the pickle
_COUNT = struct.Struct("<I")


def pack(value: Any) -> tuple[bytes, list[memoryview]]:
    """The head with the pickle, and the buffers that follow it. Raises CallFailed for what cannot be pickled."""
    buffers: list[memoryview] = []

    def beside(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < BESIDE_BYTES:
            return True
        buffers.append(raw)
        return False

    data = _pickled(value, beside, buffers)
    sizes = [len(data), *(buffer.nbytes for buffer in buffers)]
    return struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes) + data, buffers


def _pickled(value: Any, beside: Any, buffers: list[memoryview]) -> bytes:
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=beside)
    except Exception:  # noqa: BLE001 - pickling runs the value's own code, which may raise anything: by value is tried next
        pass
    else:
        if b"__main__" not in data:  # what a script defines is nowhere to be imported
            return data
    from ray.cloudpickle import CloudPickler  # here: only what goes by value needs it, and importing Ray takes its time

    pickler: Any = CloudPickler
    buffers.clear()
    file = io.BytesIO()
    try:
        pickler(file, protocol=5, buffer_callback=beside).dump(value)
    except Exception as error:  # pickling runs user code: it may raise anything
        raise CallFailed(f"cannot be sent: {type(error).__name__}: {error}") from error
    return file.getvalue()


def unpack(data: bytes | bytearray | memoryview) -> Any:
    """The value of one whole parcel. Whatever unpickling raises comes out as it is: it runs the value's own code."""
    view = memoryview(data)
    (count,) = _COUNT.unpack_from(view)
    sizes = struct.unpack_from(f"<{count}Q", view, _COUNT.size)
    start = _COUNT.size + 8 * count
    parts = []
    for size in sizes:
        parts.append(view[start : start + size])
        start += size
    return pickle.loads(parts[0], buffers=parts[1:])


def has_buffers(data: bytes | bytearray | memoryview) -> bool:
    """Whether arrays will look into the parcel: it must be theirs alone then, and may be written to."""
    return bool(_COUNT.unpack_from(data)[0] > 1)
