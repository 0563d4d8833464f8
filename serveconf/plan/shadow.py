"""Operations and rules that no request can reach, because others come before them. Warnings of the plan."""

from __future__ import annotations

from collections import defaultdict

from serveconf.plan.costs import canonical
from serveconf.plan.state import DesiredDeployment, DesiredStack
from serveconf.routing import PrefixTable
from serveconf.spec.claims import claims_of, lost_claims

_NAMED = 3


def shadowed(desired: DesiredStack) -> tuple[str, ...]:
    """One line for each pair of deployments of which one takes operations away from the other."""
    alike: defaultdict[bytes, dict[str, DesiredDeployment]] = defaultdict(dict)
    for deployment in desired.deployments:
        if deployment.prefix is not None:  # who asks for more or less of a request is another matter
            alike[canonical(deployment.spec.get("match"))][deployment.prefix] = deployment
    tables = {match: PrefixTable(by_prefix) for match, by_prefix in alike.items()}
    lines = []
    for deployment in sorted(desired.deployments, key=lambda d: d.name):
        table = tables.get(canonical(deployment.spec.get("match")), PrefixTable[DesiredDeployment]())
        for owner, operations in sorted(_taken(deployment, table).items()):
            more = f" and {len(operations) - _NAMED} more" if len(operations) > _NAMED else ""
            prefix = next(d.prefix for d in desired.deployments if d.name == owner)
            lines.append(
                f"{', '.join(operations[:_NAMED])}{more} of '{deployment.name}' cannot be reached: "
                f"{prefix} belongs to '{owner}'"
            )
    return (*lines, *_unreachable(desired))


def _unreachable(desired: DesiredStack) -> list[str]:
    """Deployments, or parts of their match, that another one always comes before."""
    claims = {d.name: claims_of(d.prefix, d.spec.get("match")) for d in desired.deployments if d.prefix is not None}
    return [
        f"no request for '{lost.claim}' reaches '{lost.loser}': '{lost.winner}' takes them first"
        for lost in lost_claims(claims)
    ]


def _taken(deployment: DesiredDeployment, table: PrefixTable[DesiredDeployment]) -> dict[str, list[str]]:
    """The operations of ``deployment`` that others answer, by the name of the one that does."""
    taken: defaultdict[str, list[str]] = defaultdict(list)
    if deployment.prefix is None:
        return taken
    for operation in deployment.operations:
        path = deployment.prefix.rstrip("/") + operation.partition(" ")[2]
        literal = path.split("{")[0]  # behind a parameter the path can be anything
        if literal != path:
            literal = literal[: literal.rfind("/")]
        owner = table.match(literal or "/")
        if owner is not None and owner.name != deployment.name:
            taken[owner.name].append(operation)
    return taken
