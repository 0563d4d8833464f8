"""The spec: what one YAML file may say, as frozen pydantic models. Everyone reads them; nobody else defines a default.

Every field declares, where it stands, its meaning (the docstring below it), examples, and what changing it on a live
stack costs (``Cost``): plan, ``explain``, the JSON Schema and the docs are all written from here.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from serveconf.spec.actors import FallbackSpec, GroupStrategy, LoggingSpec, RayActorOptions, group_strategy
from serveconf.spec.checks import check_bundles, check_prefix
from serveconf.spec.cost import Cost
from serveconf.spec.http import HttpOptions, Location, MiddlewareSpec, TracingSpec
from serveconf.spec.kinds import (
    Bundle,
    CountOrPercent,
    ImportPath,
    Name,
    PositiveSeconds,
    ReplicaCount,
    RoutePrefix,
    Seconds,
    Strict,
    UrlPath,
    costs,
)
from serveconf.spec.scaling import AUTO_MAX_REPLICAS, ROOM_OVER_TARGET, AutoscalingConfig, ScheduleSpec
from serveconf.spec.traffic import CanarySpec, MatchSpec, MirrorSpec, SessionAffinitySpec

__all__ = [
    "SHARED",
    "AutoscalingConfig",
    "CanarySpec",
    "Cost",
    "DeploymentOptions",
    "DeploymentSpec",
    "FallbackSpec",
    "GroupStrategy",
    "HttpOptions",
    "Location",
    "LoggingSpec",
    "MatchSpec",
    "MiddlewareSpec",
    "MirrorSpec",
    "MovedSpec",
    "RayActorOptions",
    "RolloutSpec",
    "ScheduleSpec",
    "SessionAffinitySpec",
    "SpecFile",
    "StackSpec",
    "Strict",
    "TracingSpec",
    "as_wire",
    "check_prefix",
    "costs",
]


class RolloutSpec(Strict):
    """How a change replaces replicas."""

    max_surge: CountOrPercent = Field(default="100%", examples=["100%", 1], json_schema_extra=costs(Cost.NONE))
    """New replicas beyond num_replicas during a change: a count, or a percentage rounded up."""
    max_unavailable: CountOrPercent = Field(default=0, examples=[0, "25%"], json_schema_extra=costs(Cost.NONE))
    """How far below num_replicas a change may go: a count, or a percentage rounded down."""
    ready_timeout_s: PositiveSeconds = Field(default=60.0, examples=[60], json_schema_extra=costs(Cost.NONE))
    """Seconds a new replica may take until it is ready; past it the change fails and what ran before stays."""
    bake_s: Seconds = Field(default=0.0, examples=[0, 30], json_schema_extra=costs(Cost.NONE))
    """Seconds after the switch during which the error rate is watched."""
    max_error_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.05, examples=[0.05], json_schema_extra=costs(Cost.NONE)
    )
    """Share of 5xx answers during bake_s or a canary's steps above which the change is taken back."""
    canary: CanarySpec | None = Field(
        default=None, examples=[None, {"steps": [5, 25, 50], "step_s": 30}], json_schema_extra=costs(Cost.NONE)
    )
    """Tries a change on a share of the requests first; null: all of them at once."""


SHARED = (  # a process has one of each
    "num_replicas", "autoscaling_config", "ray_actor_options", "max_replicas_per_node", "placement_group_bundles",
    "placement_group_strategy", "rollout", "logging",
)  # fmt: skip


class Identity(Strict):
    """What only a deployment itself can say."""

    name: Name = Field(examples=["catalog"], json_schema_extra=costs(Cost.ROLL))
    """Name of the deployment, unique in its stack."""
    import_path: ImportPath = Field(examples=["shop.catalog:app"], json_schema_extra=costs(Cost.ROLL))
    """What to serve, as module:attribute (the attribute may be dotted): an ASGI app, a deployment, a class or a function."""
    route_prefix: RoutePrefix | None = Field(
        default=None, examples=["/catalog", "/", None], json_schema_extra=costs(Cost.ROUTE, default="/{name}")
    )
    """Path below which requests reach it; left out: /{name}; null: not reachable over HTTP."""
    mirror: MirrorSpec | None = Field(
        default=None,
        examples=[None, {"deployment": "catalog-next", "percent": 10}],
        json_schema_extra=costs(Cost.ROUTE),
    )
    """Sends copies of its requests to another deployment too: bodies up to 1 MiB, no WebSockets."""


class DeploymentOptions(Strict):
    """What ``defaults`` may say for all deployments of a file, and each deployment for itself."""

    num_replicas: ReplicaCount = Field(default=1, examples=[1, 2, "auto"], json_schema_extra=costs(Cost.SCALE))
    """Number of replicas; auto: it follows the load, as autoscaling_config says, up to 100 where that says no most."""
    process: Name | None = Field(default=None, examples=[None, "small"], json_schema_extra=costs(Cost.ROLL))
    """Deployments that name the same process share one (per replica), and are rolled together; null: one of its own."""
    factory: bool = Field(default=False, examples=[False, True], json_schema_extra=costs(Cost.ROLL))
    """Call the imported attribute with init_args and init_kwargs and serve what it returns."""
    init_args: list[Any] = Field(default=[], examples=[["small", 3]], json_schema_extra=costs(Cost.ROLL))
    """Positional arguments of the class or factory."""
    init_kwargs: dict[str, Any] = Field(default={}, examples=[{"model": "small"}], json_schema_extra=costs(Cost.ROLL))
    """Keyword arguments of the class or factory."""
    user_config: Any = Field(
        default=None, examples=[None, {"threshold": 0.5}], json_schema_extra=costs(Cost.RECONFIGURE)
    )
    """Handed to reconfigure(user_config) of the class, at start and live; changing it restarts nothing."""
    middlewares: list[MiddlewareSpec] = Field(
        default=[], examples=[[{"import_path": "shop.auth:RequireKey"}]], json_schema_extra=costs(Cost.ROUTE)
    )
    """Starlette middlewares for this route only, inside those of http_options; the first is the outermost."""
    max_ongoing_requests: Annotated[int, Field(ge=1)] = Field(
        default=100,
        examples=[100],
        json_schema_extra=costs(
            Cost.ROLL, default="100; with autoscaling_config 1.5 × target_ongoing_requests, rounded up"
        ),
    )
    """Requests that one replica handles at a time, strictly held; the others wait at the proxy."""
    max_queued_requests: Annotated[int, Field(ge=-1)] = Field(
        default=-1, examples=[-1, 200], json_schema_extra=costs(Cost.ROUTE)
    )
    """Requests that may wait at one proxy; -1: no limit; past it 503 with Retry-After."""
    request_timeout_s: PositiveSeconds | None = Field(
        default=None, examples=[None, 30], json_schema_extra=costs(Cost.ROUTE)
    )
    """Overrides http_options.request_timeout_s for this deployment."""
    match: MatchSpec | None = Field(
        default=None, examples=[None, {"hosts": ["a.example"]}], json_schema_extra=costs(Cost.ROUTE)
    )
    """Takes only those of the requests below its prefix; null: all."""
    session_affinity: SessionAffinitySpec | None = Field(
        default=None, examples=[None, {"cookie": "replica"}], json_schema_extra=costs(Cost.ROUTE)
    )
    """Keeps the requests of a session on one replica; null: each goes to the less loaded of two."""
    health_check_path: UrlPath | None = Field(
        default=None, examples=[None, "/health"], json_schema_extra=costs(Cost.ROLL)
    )
    """Path on the app that is asked for health; else check_health() of the class; else liveness alone."""
    health_check_period_s: PositiveSeconds = Field(default=10.0, examples=[10], json_schema_extra=costs(Cost.NONE))
    """Seconds between health checks."""
    health_check_timeout_s: PositiveSeconds = Field(default=30.0, examples=[30], json_schema_extra=costs(Cost.NONE))
    """Seconds after which an unanswered health check counts as failed."""
    event_loop_timeout_s: PositiveSeconds | None = Field(
        default=None, examples=[None, 10], json_schema_extra=costs(Cost.NONE)
    )
    """Seconds that an `async def` may block a replica's event loop before it is replaced; null: health checks alone decide."""
    graceful_shutdown_timeout_s: Seconds = Field(default=20.0, examples=[20], json_schema_extra=costs(Cost.NONE))
    """Seconds that a replaced replica may drain."""
    autoscaling_config: AutoscalingConfig | None = Field(
        default=None, examples=[None, {"min_replicas": 1, "max_replicas": 4}], json_schema_extra=costs(Cost.SCALE)
    )
    """Lets the number of replicas follow the load, instead of num_replicas."""
    ray_actor_options: RayActorOptions = Field(
        default=RayActorOptions.model_construct(), examples=[{"num_cpus": 0.1}], json_schema_extra=costs(Cost.ROLL)
    )
    """What each replica asks of Ray."""
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, examples=[None, 1], json_schema_extra=costs(Cost.ROLL)
    )
    """How many of its replicas may be on one node at a time, those that a change replaces among them; null: no limit."""
    placement_group_bundles: (
        Annotated[list[Bundle], AfterValidator(check_bundles), Field(json_schema_extra={"minItems": 1})] | None
    ) = Field(default=None, examples=[None, [{"CPU": 1, "GPU": 1}, {"GPU": 1}]], json_schema_extra=costs(Cost.ROLL))
    """A Ray placement group for each replica: its actor is in the first bundle, what that starts in Ray in the group; null: none."""
    placement_group_strategy: Annotated[
        GroupStrategy | None, BeforeValidator(group_strategy, json_schema_input_type=GroupStrategy | None)
    ] = Field(default=None, examples=[None, "STRICT_PACK"], json_schema_extra=costs(Cost.ROLL))
    """How the bundles lie on the nodes: PACK, SPREAD, STRICT_PACK (one node) or STRICT_SPREAD (a node each); null: PACK."""
    logging: LoggingSpec | None = Field(
        default=None, examples=[None, {"level": "debug", "format": "json"}], json_schema_extra=costs(Cost.ROLL)
    )
    """How its replicas write log lines; null: as the app sets it up itself."""
    rollout: RolloutSpec = Field(
        default=RolloutSpec.model_construct(), examples=[{"max_surge": "100%"}], json_schema_extra=costs(Cost.NONE)
    )
    """How a change replaces replicas."""


class DeploymentSpec(DeploymentOptions, Identity):
    """One served object: what to import, where it is mounted, how many replicas run it."""

    overrides: dict[str, dict[str, Any]] = Field(
        default={}, examples=[{"Model": {"num_replicas": 2}}], json_schema_extra=costs(Cost.NONE)
    )
    """Options of the other deployments of a bound application, by their names there; they are NAME.THEIRS in plan and status."""

    @property
    def prefix(self) -> str | None:
        """Where it is mounted: the given prefix, ``/{name}`` where the key was left out, None where it is null."""
        return self.route_prefix if "route_prefix" in self.model_fields_set else f"/{self.name}"

    @property
    def scaling(self) -> AutoscalingConfig | None:
        """How the number of replicas follows the load; None where it is fixed."""
        config = self.autoscaling_config
        if self.num_replicas != "auto":
            return config
        config = config or AutoscalingConfig()
        return (
            config
            if "max_replicas" in config.model_fields_set
            else config.model_copy(update={"max_replicas": AUTO_MAX_REPLICAS})
        )

    @property
    def ongoing_limit(self) -> int:
        """How many requests a replica handles at a time. A burst waits where a new replica can still take it over."""
        if self.scaling is None or "max_ongoing_requests" in self.model_fields_set:
            return self.max_ongoing_requests
        return math.ceil(ROOM_OVER_TARGET * self.scaling.target_ongoing_requests)


class MovedSpec(Strict):
    """A deployment that has another name than before: its replicas stay, and only routes change."""

    from_: Name = Field(alias="from", examples=["goods"], json_schema_extra=costs(Cost.ROUTE))
    """The name that it had."""
    to: Name = Field(examples=["catalog"], json_schema_extra=costs(Cost.ROUTE))
    """The name that it has now."""


class StackSpec(Strict):
    """One YAML file: a named set of deployments that is applied as a unit."""

    name: Name = Field(default="default", examples=["shop"], json_schema_extra=costs(Cost.NONE))
    """Name of the stack. Two stacks live side by side and never touch each other."""
    app_dir: Annotated[str, Field(min_length=1)] = Field(
        default=".", examples=["."], json_schema_extra=costs(Cost.ROLL)
    )
    """Folder where import paths start, relative to the file.

    What it holds is code, but for what .gitignore leaves out, secrets, sqlite files, logs, and what the running app is seen to
    write there, which is its data. A .serveconfignore there overrules that: a line ``results/`` is data, ``!seed.db`` is code.
    """
    standbys: Annotated[int, Field(ge=0, le=16)] = Field(default=1, examples=[1, 0], json_schema_extra=costs(Cost.NONE))
    """Processes kept warm per node and kind of replica (num_cpus, memory, resources, runtime_env), for all stacks; 0: none.

    With it a proxy that is alone on its node has one standing by.
    """
    http_options: HttpOptions = Field(
        default=HttpOptions.model_construct(), examples=[{"port": 8000}], json_schema_extra=costs(Cost.PROXY)
    )
    """The HTTP front of the cluster."""
    deployments: list[DeploymentSpec] = Field(
        default=[],
        examples=[[{"name": "catalog", "import_path": "shop.catalog:app"}]],
        json_schema_extra=costs(Cost.NONE),
    )
    """What is served."""
    moved: list[MovedSpec] = Field(
        default=[], examples=[[{"from": "goods", "to": "catalog"}]], json_schema_extra=costs(Cost.ROUTE)
    )
    """Deployments that were renamed: a change of name alone is a route and no roll. Items may stay for as long as you like."""


class SpecFile(StackSpec):
    """One YAML file as it is written: a stack, and what the loader resolves before anyone else sees it."""

    include: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], examples=[["team/models.yaml"]], json_schema_extra=costs(Cost.NONE)
    )
    """Files whose deployments and http_options are merged into this one; relative to this file."""
    defaults: DeploymentOptions = Field(
        default=DeploymentOptions.model_construct(), examples=[{"num_replicas": 2}], json_schema_extra=costs(Cost.NONE)
    )
    """Values for what a deployment of this file, or of a file that it includes, leaves out."""

    @property
    def stack(self) -> StackSpec:
        """The stack alone. It is not validated again: a second validator takes longer to build than all checks."""
        said = {name: getattr(self, name) for name in StackSpec.model_fields}
        return StackSpec.model_construct(self.model_fields_set & said.keys(), **said)


def as_wire(spec: StackSpec) -> dict[str, Any]:
    """The spec as plain JSON data with only what was set, so that the defaults can be told from what was said.

    ``StackSpec.model_validate_json(json.dumps(as_wire(spec)))`` gives the spec back.
    """
    return spec.model_dump(mode="json", exclude_unset=True)
