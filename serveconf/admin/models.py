"""Requests and answers of the control API as pydantic models: the API's documentation is written from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from serveconf.spec.kinds import Replicas

Count = Annotated[int, Field(ge=0, le=2**53)]
Span = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]


class Body(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Origin(Body):
    """Who asks, and from where."""

    author: str = ""
    """user@host, for the history."""
    source: str = ""
    """The file that was applied."""
    commit: str | None = None
    """The git commit that the file is in."""
    automatic: bool = False
    """From a watcher: it respects the pin that a rollback leaves."""
    timeout_s: float | None = Field(default=None, gt=0)
    """Give up, and take back what was started, after so many seconds."""


class ApplyBody(Origin):
    """A spec to plan or apply."""

    spec: dict[str, Any]
    """The spec with only the keys that were said, values filled in."""
    masks: dict[str, str] = {}
    """What to show instead of a value that came from a variable: path of the value to the text of the file."""
    code: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """Digest of the code package, 64 hexadecimal digits; upload it first."""
    files: dict[str, str] = {}
    """Content hash of each file of the package, by path."""
    app_dir: str | None = None
    """The folder that was packed, for the working directory of replicas on this machine."""
    merge: bool = False
    """Add or replace just these deployments and keys of http_options; all others of the stack stay."""
    alone: bool = False
    """With ``merge``: the stack's other deployments go, its http_options stay."""


class FileBody(Body):
    """A spec file to be read for who sends it."""

    text: str
    variables: dict[str, str] = Field(default={}, repr=False)
    """Those that it names, as far as they are set where it lies."""


class FrontModel(Body):
    """Where proxies listen."""

    host: str
    port: int


class ReadModel(Body):
    """What a spec file says, where there is nothing to say about it."""

    spec: dict[str, Any] | None
    """As an apply takes it; null: something is wrong with the file, or it includes others. ``validate`` tells."""
    masks: dict[str, str] = {}
    front: FrontModel | None = None
    """None where it wants no proxies."""


class RollbackBody(Origin):
    """A revision to go back to."""

    revision: int | None = None
    """Its number; left out: the last one that was applied before the current."""


class LoadModel(Body):
    """What a script asks of one deployment, since it began."""

    arrivals: Count = 0
    completions: Count = 0
    served_s: Span = 0.0
    """What the completions took on their replicas."""
    ongoing: Count = 0
    """Calls that run or wait just now."""
    waiting: Count = 0
    ongoing_s: Span = 0.0
    """The time integral of ``ongoing``, in call-seconds."""
    waiting_s: Span = 0.0
    oldest_wait_s: Span = 0.0


class HandlesBody(Body):
    """Which script asks, and what its calls come to, so that they count for autoscaling."""

    script: str = Field(min_length=1, max_length=64)
    """A name of its own, the same each time."""
    loads: dict[str, LoadModel] = Field(default={}, max_length=10_000)
    """By stack/deployment."""


class HandlesModel(Body):
    """What a script needs to call deployments by handle."""

    host: str
    """The controller's host name: the sockets are there."""
    node_id: str
    secret: str = Field(repr=False)
    """Proves to a replica that the caller belongs to the cluster; hexadecimal."""
    digest: str
    """Of the table; empty before the first apply."""
    table: str | None
    """The committed routing table, base64; null before the first apply, and where the script has it."""


class DeleteBody(Origin):
    """What to take away."""

    deployments: list[str] | None = None
    """Names of deployments; left out: the whole stack."""


class UpgradeBody(Body):
    """To which version of serveconf, and who asks."""

    version: str
    author: str = ""


class CanaryBody(Body):
    """Whose canary is meant."""

    deployment: str | None = None
    """One that has one; left out: whichever the stack has. The canaries of a stack go together."""


class WatchedBody(Body):
    """What a watcher tells of a stack."""

    kind: Literal["drift", "heal", "quarantine"]
    message: str = Field(min_length=1, max_length=2_000)
    """For people, without the stack's name."""
    data: dict[str, Any] = {}
    """What a machine may read."""


class CallsModel(Body):
    """A webhook's calls."""

    calls: int


class TokenModel(Body):
    """The control API's token, from now on."""

    token: str = Field(repr=False)


class Accepted(Body):
    """An apply has begun; follow it at /api/v1/operations/{operation}/events."""

    operation: str
    """Its id."""


class ActionModel(Body):
    """One step of a plan."""

    action: str
    deployment: str | None
    cost: Literal["none", "route", "reconfigure", "scale", "roll", "proxy", "remove"]
    reason: str
    before: Any
    after: Any


class PlanModel(BaseModel):
    """What an apply would do."""

    stack: str
    base_revision: int | None
    changed: bool
    actions: list[ActionModel]
    warnings: list[str] = []


class ErrorDetail(Body):
    """What went wrong and what to do."""

    code: str
    message: str
    hint: str | None
    problems: list[dict[str, Any]] = []
    """Problems of the served code, where it is that."""


class ErrorModel(Body):
    """Every answer that is not 2xx."""

    error: ErrorDetail


class CancelModel(Body):
    """Whether an apply could still be undone."""

    undone: bool
    message: str


class CodeModel(Body):
    """Whether the store has a code package."""

    present: bool


class HealthModel(Body):
    """The controller is there."""

    status: Literal["ok"] = "ok"
    service: Literal["serveconf"] = "serveconf"
    version: str
    """Of serveconf, as the controller runs it."""
    api: int
    """Of this API; a command that is newer or older compares it with its own."""
    oldest_api: int
    """The oldest that this controller still understands."""
    proofs: list[str] = []
    """Where a challenge was sent: for each token its HMAC, so that who has one knows whom he would give it to."""


class ScaleBody(BaseModel):
    """A number of replicas, until the next apply."""

    replicas: Replicas


class ScaledModel(BaseModel):
    """What the number was, and is."""

    stack: str
    deployment: str
    before: int
    replicas: int


class EventModel(BaseModel):
    """One event; where it stands for several, ``time`` is that of the last and ``data.first`` that of the first."""

    time: str
    kind: str
    stack: str | None
    deployment: str | None
    message: str
    data: dict[str, Any]
    count: int


class Invitation(BaseModel):
    """An address that signs a browser in, once and soon."""

    address: str


class SessionModel(BaseModel):
    """Who calls."""

    role: Literal["read", "write"]


class FiguresModel(BaseModel):
    """Of one deployment."""

    bounds_s: list[float]
    """Upper bounds of the buckets."""
    buckets: list[int]
    """How many requests of the last minutes took so long; the last: longer than all bounds."""
    answers: dict[str, dict[str, int]]
    """Since it exists: by method, by status."""
    operations: list[str]
    """Of the version that serves, as its code was looked at: method and path below its route."""


class RevisionModel(BaseModel):
    """One line of the history."""

    revision: int
    stack: str
    time: str
    author: str
    token: str
    """What let the author in: its kind (write, browser) and its fingerprint; empty: not known."""
    automatic: bool
    """Whether it was applied by what follows the source."""
    source: str
    commit: str | None
    outcome: str
    summary: str


class PackageModel(BaseModel):
    """Where a deployment's code comes from, as an apply says it."""

    code: str
    files: dict[str, str]
    app_dir: str | None
    masked: bool
    """Whether its spec has values that came from variables, and are not shown."""


class RevisionDetail(RevisionModel):
    """One revision with what it said, did and counted."""

    spec: dict[str, Any]
    actions: list[dict[str, Any]]
    receipt: dict[str, Any]
    failure: dict[str, Any] | None
    packages: dict[str, PackageModel]
    """By the name of the deployment."""


class ConsideredModel(BaseModel):
    """A rule below which the path lies too, and why it does not take the request."""

    stack: str
    deployment: str
    rule: str
    why: str


class VerdictModel(BaseModel):
    """Who takes a request; ``status`` is 404 or 405 where nobody does."""

    status: int | None
    stack: str
    deployment: str
    rule: str
    why: str
    others: list[ConsideredModel]
