"""Builds one generation for serving: mounts, middleware stacks, table. Reuses from what is there whatever is unchanged.

``ProxyApp`` calls ``Builder.build`` while it stages; a failure leaves everything as it was.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec.structs import replace
from starlette.types import ASGIApp

from serveconf.figures import DeploymentFigures
from serveconf.matching import Rule, Table, rule_texts, table_of
from serveconf.proxy.middleware import Imported, ImportMiddleware, build_stack
from serveconf.proxy.mirror import Mirrored
from serveconf.proxy.mount import Mount, enter_backend
from serveconf.proxy.shares import Draw, Split
from serveconf.proxy.tally import Answers, SideAnswers
from serveconf.routing import Front, Generation, Middleware, ReplicaAddress, Route

Served = tuple[str, ASGIApp, Mount | None]  # ``root_path``, the app, and the mount where nothing stands before that


class Pool(Protocol):
    """The connections to replicas (dispatch)."""

    async def open(self, addresses: Iterable[ReplicaAddress], /) -> None:
        """Connect to all of them. Raises OperatorError."""

    async def open_behind(self, addresses: Iterable[ReplicaAddress], /) -> None:
        """Connect to those that answer at once, and to the others when they do."""

    def release(self, ids: Iterable[str], /) -> None:
        """No request will go to these replicas any more."""

    def lead(
        self,
        leaders: Mapping[Any, Any],
        former: Mapping[tuple[str, str], str] = ...,
        generation: int = ...,
        /,
    ) -> None:
        """New requests go to these backends from now on, by stack, deployment and whether it is a canary: those that wait too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Staged:
    """One generation, built. ``table`` gives the ``root_path`` that an app sees, and the app."""

    number: int
    front: Front
    root_path: str
    stack: ASGIApp | None  # the front's middlewares, None where it has none
    mounts: tuple[Mount, ...]
    former: tuple[
        Mount, ...
    ]  # of the same routes, with other replicas or under a former name: nothing new comes to them
    table: Table[Served]

    @property
    def deployments(self) -> dict[str, str]:
        """Prefix, with what else it asks for → deployment."""
        routes = (mount.route for mount in self.mounts if mount.route.prefix)
        return {text: route.deployment for route in routes for text in rule_texts(route.prefix, route.match)}


class Builder:
    """Builds generations; knows every mount that is still in use, by any generation or any request."""

    def __init__(
        self,
        *,
        pool: Pool,
        backend_factory: Callable[[Route], ASGIApp],
        import_middleware: ImportMiddleware,
        inside_front: ASGIApp,
        system: Mapping[str, ASGIApp],
        on_dropped_copy: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool = pool
        self._make_backend = backend_factory
        self._import = import_middleware
        self._inside_front = inside_front
        self._system = system
        self._mounts: set[Mount] = set()
        self._retried_before = 0  # by backends that are gone
        self._figures: dict[str, DeploymentFigures] = {}  # as answers
        self._draws: dict[str, Draw] = {}  # of deployments with a canary: it goes on from step to step
        self._leading: dict[tuple[str, str], Mount] = {}  # stack, deployment → what serves it now
        self._on_dropped_copy = on_dropped_copy
        self.sides: dict[str, SideAnswers] = {}  # "stack/deployment@version" → what each side of a canary has answered
        self.answers: dict[str, Answers] = {}  # "stack/deployment" → what its mounts have answered, of every generation

    @property
    def retried(self) -> int:
        """How often a request was tried once more, on another replica."""
        return self._retried_before + sum(_retried(mount) for mount in self._mounts)

    def empty(self) -> Staged:
        """What is served before the first generation."""
        return self._assemble(Generation(number=0), None, ())

    async def build(self, generation: Generation, live: Staged, *, restoring: bool) -> Staged:
        """Raises CodeFailed or OperatorError. The mounts are held for this generation until ``let_go``.

        ``restoring``: a replica that can't be reached is no error.
        """
        opened = {replica.id: replica for route in generation.public for replica in route.replicas}
        held: list[Mount] = []
        former: list[Mount] = []
        try:
            stack = live.stack
            if generation.front.middlewares != live.front.middlewares:
                stack = await self._build_stack(generation.front.middlewares, self._inside_front)
            for route in generation.public:
                mount = await self._mount(_as_mounted(route))
                mount.hold(generation.number)
                self._mounts.add(mount)
                held.append(mount)
            former += self._that_go_on(held, live)
            for mount in former:
                mount.hold(generation.number, beside=True)
            open_replicas = self._pool.open_behind if restoring else self._pool.open
            await open_replicas(list(opened.values()))
        except BaseException:  # a cancel too: what was held for it is let go
            for mount in (*held, *former):
                mount.let_go(generation.number)
            self._release(opened)
            raise
        return self._assemble(generation, stack, held, former)

    def lead(self, staged: Staged) -> None:
        """A generation is live: requests that wait in an older one are served by its replicas."""
        old = [mount for mount in staged.mounts if mount.route.share is None]
        self._leading = {(mount.route.stack, mount.route.deployment): mount for mount in old}
        leaders = {
            (*name, is_canary): mount.backend for name, mount in self._leading.items() for is_canary in (False, True)
        }
        for mount in old:
            mount.side = None
        for canary in staged.mounts:
            if canary.route.share is None:
                continue
            name = (canary.route.stack, canary.route.deployment)
            leaders[*name, True] = canary.backend
            counted = [canary, *filter(None, (self._leading.get(name),))]
            self._forget_sides(name, {side_key(mount.route) for mount in counted})
            for side in counted:
                side.side = self.sides.setdefault(side_key(side.route), SideAnswers())
        former = {(m.route.stack, name): m.route.deployment for m in old for name in m.route.formerly}
        self._pool.lead(
            leaders, former, staged.number
        )  # who waits for a canary that is over is served by what came of it

    def _forget_sides(self, name: tuple[str, str], running: set[str]) -> None:
        """What versions of former canaries of a deployment have answered."""
        former = [key for key in self.sides if key.startswith("/".join(name) + "@") and key not in running]
        for key in former:
            del self.sides[key]

    def let_go(self, staged: Staged) -> None:
        """A generation is served no more, or never will be. What its requests still use stays until they end."""
        for mount in (*staged.former, *staged.mounts):
            mount.let_go(staged.number)
        beside = [mount for mount in (*staged.mounts, *staged.former) if not mount.holds_replicas]
        self._release(replica.id for mount in beside for replica in mount.route.replicas)

    def _assemble(
        self, generation: Generation, stack: ASGIApp | None, mounts: Sequence[Mount], former: Sequence[Mount] = ()
    ) -> Staged:
        root_path = generation.front.root_path.rstrip("/")
        rules: list[Rule[Served]] = []
        canaries = {(m.route.stack, m.route.deployment): m for m in mounts if m.route.share is not None}
        shares = {(r.stack, r.deployment): r for r in generation.routes if r.share is not None}
        for mount in mounts:
            route, prefix = mount.route, mount.route.prefix
            if not prefix or route.share is not None:
                continue  # it gets copies only, or its share of what comes to the old version
            name = (route.stack, route.deployment)
            serve = self._with_mirror(route, self._with_canary(mount, canaries.get(name), shares.get(name)))
            value = (root_path if prefix == "/" else root_path + prefix, serve, mount if serve == mount.serve else None)
            rules.append(Rule(prefix=prefix, match=route.match, name=f"{route.deployment} {route.stack}", value=value))
        return Staged(
            number=generation.number,
            front=generation.front,
            root_path=root_path,
            stack=stack,
            mounts=tuple(mounts),
            former=tuple(former),
            table=table_of(rules, {path: (root_path, app, None) for path, app in self._system.items()}),
        )

    def _with_canary(self, mount: Mount, canary: Mount | None, said: Route | None) -> ASGIApp:
        if canary is None or said is None:
            return mount.serve
        draw = self._draws.setdefault(f"{mount.route.stack}/{mount.route.deployment}", Draw())
        return Split(mount, canary, draw, share=said.share or 0.0, sticky=said.sticky).serve

    def _with_mirror(self, route: Route, serve: ASGIApp) -> ASGIApp:
        if route.mirror is None:
            return serve
        target = (route.stack, route.mirror.deployment)
        return Mirrored(route.mirror, serve, lambda: self._leading.get(target), self._on_dropped_copy).serve

    async def _mount(self, route: Route) -> Mount:
        """The mount that serves exactly this route already, or a new one, with the old one's middlewares where it can."""
        mine = [mount for mount in self._mounts if _is_same_deployment(mount.route, route)]
        stack = next((mount.stack for mount in mine if mount.route.middlewares == route.middlewares), None)
        if stack is None and self._same_mount(route) is None:
            stack = await self._build_stack(route.middlewares, enter_backend)
        mount = self._same_mount(route)  # perhaps of another generation that was built meanwhile
        if mount is not None:
            return mount
        key = f"{route.stack}/{route.deployment}"
        answers = self.answers.setdefault(key, Answers())
        figures = self._figures.setdefault(key, DeploymentFigures())
        return Mount(route, self._make_backend(route), stack, self._on_free, answers, figures)

    def _that_go_on(self, named: Sequence[Mount], live: Staged) -> list[Mount]:
        """Mounts of routes that are named with other replicas, or under another name: what runs in them is not to be cut."""
        by_name: defaultdict[tuple[str, str], list[Mount]] = defaultdict(list)
        for mount in self._mounts - set(named):
            if not mount.over and (mount.requests or mount in live.mounts):
                by_name[mount.route.stack, mount.route.deployment].append(mount)
        return [
            mount
            for one in named
            for name in (one.route.deployment, *one.route.formerly)
            for mount in by_name.get((one.route.stack, name), ())
            if _goes_on_as(mount.route, one.route)
        ]

    def _same_mount(self, route: Route) -> Mount | None:
        mine = (mount for mount in self._mounts if mount.route == route and not mount.over)
        return next((mount for mount in mine if mount.holds_replicas), None)  # of others some may have been let go of

    def figures(self) -> dict[str, DeploymentFigures]:
        """What was counted of each deployment, as ``stack/deployment``, and what is going on now."""
        for one in self._figures.values():
            one.active = one.queued = 0
        for mount in self._mounts:
            mount.figures.active += mount.requests
            mount.figures.queued += getattr(mount.backend, "queued", 0)
        return self._figures

    async def _build_stack(self, middlewares: Sequence[Middleware], innermost: ASGIApp) -> ASGIApp | None:
        """Imports run in a thread: the user's modules may take their time, and requests are being served."""
        if not middlewares:
            return None
        imported: list[tuple[Middleware, Imported]] = []
        for middleware in middlewares:
            imported.append((middleware, await asyncio.to_thread(self._import, middleware)))
        return build_stack(imported, innermost)

    def _on_free(self, mount: Mount) -> None:
        self._mounts.discard(mount)
        self._retried_before += _retried(mount)
        self._release(replica.id for replica in mount.route.replicas)

    def _release(self, ids: Iterable[str]) -> None:
        """Tell the pool about replicas that no mount names any more."""
        used = {r.id for mount in self._mounts if mount.holds_replicas for r in mount.route.replicas}
        unused = sorted(set(ids) - used)
        if unused:
            self._pool.release(unused)


def _as_mounted(route: Route) -> Route:
    """A canary's mount, and what runs in it, stays when its share grows."""
    return route if route.share is None else replace(route, share=0.0, sticky=None)


def side_key(route: Route) -> str:
    """Under which name a version's answers are counted while a canary runs."""
    return f"{route.stack}/{route.deployment}@{route.version}"


def _is_same_deployment(one: Route, other: Route) -> bool:
    is_named_so = one.deployment == other.deployment or one.deployment in other.formerly
    return is_named_so and one.stack == other.stack and one.prefix == other.prefix


def _goes_on_as(one: Route, other: Route) -> bool:
    """Whether a route is the same but for its name and its replicas, some of which stay."""
    same = {"deployment": other.deployment, "formerly": other.formerly, "replicas": other.replicas}
    stay = {replica.id for replica in one.replicas} & {replica.id for replica in other.replicas}
    return bool(stay) and replace(one, **same, hopeless=other.hopeless) == other


def _retried(mount: Mount) -> int:
    return getattr(mount.backend, "retried", 0)
