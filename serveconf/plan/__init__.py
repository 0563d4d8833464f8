"""What a stack should be, what it is, and the plan between the two. Pure: no Ray, no network, no clock."""

from serveconf.plan.actions import Action, Plan, Reason, Why
from serveconf.plan.desired import make_desired
from serveconf.plan.diff import make_plan
from serveconf.plan.saved import SavedPlan, check_fresh, decode_plan, digest_of_spec, encode_plan, looks_like_a_plan
from serveconf.plan.shadow import shadowed

__all__ = [
    "Action",
    "Plan",
    "Reason",
    "SavedPlan",
    "Why",
    "check_fresh",
    "decode_plan",
    "digest_of_spec",
    "encode_plan",
    "looks_like_a_plan",
    "make_desired",
    "make_plan",
    "shadowed",
]
