"""What the control API says of what serves, as pydantic models: the status, and the nodes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class ReplicaModel(BaseModel):
    """One replica."""

    id: str
    state: str
    pid: int
    node_id: str
    version: str
    ongoing: int
    started: str | None = None
    """When its process began to be a replica."""
    node: str | None = None
    """The name of its node."""
    serveconf: str = ""
    """The version of serveconf that it runs; empty: not known yet."""


class CanaryModel(BaseModel):
    """The new version of a deployment, while it is tried on a share of the requests."""

    step: int
    """From 1 on."""
    percent: float
    until: str | None
    """The step lasts until then at least; null: it is about to begin."""
    message: str


class AutoscalingModel(BaseModel):
    """How many replicas a load asks for, and why."""

    desired: int
    min: int
    max: int
    ongoing: int
    queued: int
    reason: str


class DeploymentModel(BaseModel):
    """One deployment."""

    name: str
    state: Literal["Pending", "Progressing", "Healthy", "Degraded", "Failed", "Deleting"]
    route_prefix: str | None
    version: str
    message: str
    canary: CanaryModel | None = None
    autoscaling: AutoscalingModel | None = None
    replicas: list[ReplicaModel]


class DataModel(BaseModel):
    """Files that a stack's replicas were seen to write; paths are relative to app_dir."""

    paths: list[str]


class OriginModel(BaseModel):
    """Where what a stack serves came from, and whether it still is what came from there."""

    kind: Literal["file", "git"]
    location: str
    branch: str | None
    commit: str | None
    path: str
    in_sync: bool


class StackModel(BaseModel):
    """One stack."""

    name: str
    state: str
    revision: int | None
    source: OriginModel | None
    deployments: list[DeploymentModel]
    data: list[str] = []
    """Files that its replicas were seen to write: no code, in no package. Paths are relative to app_dir."""
    warnings: list[str] = []
    """What somebody should look at: files that an app has written beside its modules."""


class ProxyModel(BaseModel):
    """One proxy process."""

    id: str
    node_id: str
    pid: int
    state: str
    generation: int
    address: str
    serveconf: str = ""
    """The version of serveconf that it runs; empty: not known yet."""


class PlacedModel(BaseModel):
    """A process on a node."""

    id: str
    state: str
    stack: str | None = None
    deployment: str | None = None


class NodeModel(BaseModel):
    """One node."""

    id: str
    name: str = ""
    """Its host's, where something of ours runs there."""
    is_head: bool
    drains: bool = False
    """It will go soon: nothing new is placed there."""
    total: dict[str, float]
    """Its resources, by Ray's names; memory in bytes."""
    available: dict[str, float]
    """What is free of them."""
    replicas: list[PlacedModel]
    proxies: list[PlacedModel]


class ControllerModel(BaseModel):
    """The controller."""

    pid: int
    address: str
    serveconf: str = ""
    """The version of serveconf that it runs; empty: not known yet."""
    silent_s: float | None = None
    """For so many seconds Ray's GCS has not answered: nothing is applied, started or replaced. null: it answers."""


class StandbyModel(BaseModel):
    """A process that waits to become a replica, or to take a proxy's port when that one ends (``kind``: proxy)."""

    id: str
    node_id: str
    pid: int
    kind: str
    state: str
    serveconf: str = ""
    """The version of serveconf that it runs; empty: not known yet."""


class StatusModel(BaseModel):
    """Everything that is there."""

    generation: int
    controller: ControllerModel
    proxies: list[ProxyModel]
    standbys: list[StandbyModel] = []
    stacks: list[StackModel]
