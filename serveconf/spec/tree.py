"""YAML text to a tree of nodes with a position each: bytes in, ``Entries`` out, or problems.

PyYAML only cuts the text into events; this module walks them with limits, so that no file can take long, grow or crash,
and so that nothing is guessed: duplicate keys, tags, second documents and recursive anchors are problems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from serveconf.spec.problems import Position, Problem, join
from serveconf.spec.scalars import Ambiguous, quoted, resolve_plain, shorten
from serveconf.spec.source import Source, decode
from serveconf.spec.syntax import explain_syntax

MAX_DEPTH = 50
MAX_NODES = 25_000
MAX_SCALAR = 256 * 1024
_Loader = getattr(yaml, "CLoader", yaml.Loader)  # libyaml is many times faster; its events are the same


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. ``plain``: unquoted, so that its text decides its type."""

    at: Position
    text: str
    plain: bool
    broken: bool = False  # a problem of it was reported


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    at: Position
    items: list[Node]


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping: key to (where the key stands, value)."""

    at: Position
    entries: dict[str, tuple[Position, Node]]


Node: TypeAlias = Scalar | Items | Entries


@dataclass
class Parsed:
    """What one file gave: its tree where it has one, and the problems of its form."""

    source: Source
    root: Node | None = None
    problems: list[Problem] = field(default_factory=list)


def parse(data: bytes, file: str) -> Parsed:
    """The tree of one YAML document. Problems do not stop it where a reading is still possible."""
    source = decode(data, file)
    if isinstance(source, Problem):
        return Parsed(Source(file, ""), None, [source])
    walk = _Walk(source)
    try:
        for event in _events(source.text):
            walk.take(event)
    except yaml.YAMLError as error:
        index, message, hint = explain_syntax(error, source.text)
        walk.problems.append(source.problem(source.position(index), "", message, "syntax", hint))
        walk.root = None
    except _Stop as stop:
        walk.problems.append(source.problem(stop.at, stop.path, stop.message, stop.code, stop.hint))
        walk.root = None
    return Parsed(source, walk.root, walk.problems)


def _events(text: str) -> Iterator[yaml.Event]:
    loader = _Loader(text)
    try:
        while loader.check_event():
            yield loader.get_event()
    finally:
        loader.dispose()


class _Stop(Exception):
    """A limit was reached, or the rest cannot be understood."""

    def __init__(self, at: Position, path: str, message: str, code: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.at, self.path, self.message, self.code, self.hint = at, path, message, code, hint


@dataclass
class _Frame:
    """A collection that is still open."""

    node: Items | Entries
    path: str
    anchor: str | None
    before: int  # nodes counted when it was opened
    key: tuple[str, Position] | None = None  # a mapping's key that waits for its value
    merging: bool = False  # that key is '<<'
    tagged: bool = False
    merges: list[Node] = field(default_factory=list)


class _Walk:
    """Builds the tree from events, without recursion."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self.frames: list[_Frame] = []
        self.anchors: dict[str, tuple[Node, int] | None] = {}  # None: still open
        self.nodes = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                node = self._scalar(event)
                self._anchor(event.anchor, node, 1)
                self._add(node, event.implicit[0] and event.style in (None, ""))
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._open(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._close()
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.DocumentStartEvent():
                if self.root is not None:
                    at = self._at(event)
                    raise _Stop(
                        at, "", "a second document begins here", "multiple_documents", "one file holds one spec"
                    )
            case _:
                pass

    def _at(self, event: yaml.Event) -> Position:
        mark = event.start_mark
        return self.source.position(mark.index if mark else 0)

    def _path(self) -> str:
        if not self.frames:
            return ""
        frame = self.frames[-1]
        if isinstance(frame.node, Items):
            return join(frame.path, len(frame.node.items))
        return join(frame.path, frame.key[0]) if frame.key else frame.path

    def _problem(self, at: Position, message: str, code: str, hint: str | None = None) -> None:
        self.problems.append(self.source.problem(at, self._path(), message, code, hint))

    def _count(self, at: Position, size: int) -> None:
        self.nodes += size
        if self.nodes > MAX_NODES:
            raise _Stop(at, "", f"the file holds more than {MAX_NODES} values (aliases counted in full)", "too_large")

    def _tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, at: Position) -> bool:
        """Reports a tag."""
        if event.tag is not None:
            self._problem(at, f"the tag {shorten(event.tag)} is not allowed", "tag", _tag_hint(event.tag))
        return event.tag is not None

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        at = self._at(event)
        self._count(at, 1)
        tagged = self._tag(event, at)
        if len(event.value) > MAX_SCALAR:
            raise _Stop(at, self._path(), f"this text is longer than {MAX_SCALAR // 1024} KiB", "too_large")
        return Scalar(at, event.value, event.style in (None, ""), tagged)

    def _open(self, event: yaml.SequenceStartEvent | yaml.MappingStartEvent) -> None:
        at = self._at(event)
        before = self.nodes
        self._count(at, 1)
        tagged = self._tag(event, at)
        if len(self.frames) >= MAX_DEPTH:
            raise _Stop(at, self._path(), f"nested deeper than {MAX_DEPTH} levels", "too_deep")
        self._anchor(event.anchor, None, 0)
        node = Items(at, []) if isinstance(event, yaml.SequenceStartEvent) else Entries(at, {})
        frame = self.frames[-1] if self.frames else None
        if frame and isinstance(frame.node, Entries) and frame.key is None:
            raise _Stop(
                at, frame.path, "a key must be text, not a list or a mapping", "key_type", _brace_hint(self.source, at)
            )
        self.frames.append(_Frame(node, self._path(), event.anchor, before, tagged=tagged))

    def _close(self) -> None:
        frame = self.frames.pop()
        if isinstance(frame.node, Entries):
            self._merge(frame, frame.node)
        node = Scalar(frame.node.at, "", False, broken=True) if frame.tagged else frame.node
        self._anchor(frame.anchor, node, self.nodes - frame.before)
        self._add(node, False)

    def _alias(self, event: yaml.AliasEvent) -> None:
        at, name = self._at(event), event.anchor or ""
        if name not in self.anchors:
            raise _Stop(
                at, self._path(), f"no anchor &{name} above", "alias", f"write {quoted('*' + name)} if text is meant"
            )
        found = self.anchors[name]
        if found is None:
            raise _Stop(
                at, self._path(), f"*{name} stands inside its own anchor", "alias", "a value cannot hold itself"
            )
        node, size = found
        self._count(at, size)
        self._add(node, False)

    def _anchor(self, name: str | None, node: Node | None, size: int) -> None:
        if name is not None:
            self.anchors[name] = None if node is None else (node, size)

    def _add(self, node: Node, plain_key: bool) -> None:
        if not self.frames:
            self.root = node
            return
        frame = self.frames[-1]
        match frame.node:
            case Items(items=items):
                items.append(node)
            case Entries() if frame.key is None:
                frame.key = self._key(node, plain_key)
                frame.merging = plain_key and frame.key[0] == "<<"
            case Entries(entries=entries):
                assert frame.key is not None
                (key, at), frame.key = frame.key, None
                if frame.merging:
                    frame.merges.append(node)
                elif key in entries:
                    first = entries[key][0]
                    path = join(frame.path, key)
                    message = f"duplicate key {quoted(key)}, first at line {first.line}"
                    self.problems.append(
                        self.source.problem(at, path, message, "duplicate_key", "remove one of the two")
                    )
                else:
                    entries[key] = (at, node)

    def _key(self, node: Node, plain: bool) -> tuple[str, Position]:
        if not isinstance(node, Scalar):
            raise _Stop(node.at, self._path(), "a key must be text, not a list or a mapping", "key_type")
        if not plain or node.text == "<<":
            return node.text, node.at
        try:
            value = resolve_plain(node.text)
        except Ambiguous as error:
            self._problem(node.at, f"a key must be text: {error.message}", "key_type", f"write {quoted(node.text)}")
        else:
            if not isinstance(value, str):
                what = "null" if value is None else f"a {'boolean' if isinstance(value, bool) else 'number'}"
                hint = f"write {quoted(node.text)}" if node.text else "write the key before the ':'"
                self._problem(node.at, f"a key must be text, not {what}", "key_type", hint)
        if "${" in node.text:
            self._problem(node.at, "variables are replaced in values only, never in keys", "interpolation")
        return node.text, node.at

    def _merge(self, frame: _Frame, node: Entries) -> None:
        """``<<: *a`` and ``<<: [*a, *b]``: what the mapping says itself wins, then the earlier one."""
        for merged in frame.merges:
            for source in merged.items if isinstance(merged, Items) else [merged]:
                if not isinstance(source, Entries):
                    message = "'<<' takes the alias of a mapping, or a list of them"
                    self.problems.append(self.source.problem(source.at, frame.path, message, "alias"))
                    continue
                self._count(source.at, len(source.entries))
                for key, entry in source.entries.items():
                    node.entries.setdefault(key, entry)


def _brace_hint(source: Source, at: Position) -> str | None:
    line = source.line(at.line) or ""
    return 'write templates in quotes: "{{ … }}"' if line[: at.column].endswith("{{") else None


def _tag_hint(tag: str) -> str:
    if "include" in tag.lower():
        return "name files in the top-level list 'include'"
    return "write ${NAME} for a variable" if "env" in tag.lower() else "write the value without a tag"
