"""What happens to the nodes of chaos.py: each fault is done, waited for, and undone; it says where it was."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

from chaos_scene import TRUE_S, Scene, title_of
from machines import BIN, Node
from place import until

FROZEN_S = 4.0
HOUR = 3600


def kill_replica(scene: Scene) -> str:
    """Its process ends."""
    pid, node = scene.replica()
    os.kill(pid, signal.SIGKILL)
    scene.settle("it is killed")
    return node.ip


def freeze_replica(scene: Scene) -> str:
    """Its process stands still for a while: who is with it waits, and nobody is turned away."""
    pid, node = scene.replica()
    _freeze(pid)
    scene.settle("it goes on")
    return node.ip


def kill_proxy(scene: Scene) -> str:
    """Its process ends, with all connections to it."""
    pid, node = scene.proxy()
    scene.load.excuse(node.ip)
    os.kill(pid, signal.SIGKILL)
    scene.back(node, "it is killed")
    return node.ip


def freeze_proxy(scene: Scene) -> str:
    """Its process stands still for a while."""
    pid, node = scene.proxy()
    scene.load.excuse(node.ip)
    _freeze(pid)
    scene.back(node, "it goes on")
    return node.ip


def kill_controller(scene: Scene) -> str:
    """Its process ends."""
    os.kill(scene.controller(), signal.SIGKILL)
    scene.settle("it is killed")
    return scene.machines.head.ip


def freeze_controller(scene: Scene) -> str:
    """Its process stands still for a while."""
    _freeze(scene.controller())
    scene.settle("it goes on")
    return scene.machines.head.ip


def silence_gcs(scene: Scene) -> str:
    """Ray's GCS answers nobody for a while: nothing is started, everything is served, and the status says so."""
    gcs = next(pid for pid in scene.machines.head.processes() if "gcs/gcs_server" in title_of(pid))
    began = time.monotonic()
    os.kill(gcs, signal.SIGSTOP)
    try:
        until(lambda: scene.machines.look()["controller"]["silent_s"] is not None, "the status says so")
        scene.events["it is silent"] = round(time.monotonic() - began, 1)
        time.sleep(max(0.0, 10 - (time.monotonic() - began)))
    finally:
        os.kill(gcs, signal.SIGCONT)
    scene.settle("it answers again")
    return scene.machines.head.ip


def lose_head(scene: Scene) -> str:
    """The head ends with everything on it, and is started anew on the state that its GCS has in Redis."""
    head = scene.machines.head
    scene.load.excuse(head.ip)
    head.die()
    time.sleep(3)
    scene.restart(head)
    return head.ip


def kill_raylet(scene: Scene) -> str:
    """A node's Ray ends, and with it what it had started; it is started anew."""
    node = scene.worker()
    scene.load.excuse(node.ip)
    os.kill(_raylet(node), signal.SIGKILL)
    node.is_up = False
    scene.settle("it is killed")
    scene.restart(node)
    return node.ip


def freeze_raylet(scene: Scene) -> str:
    """A node's Ray stands still for a while; what it has started goes on."""
    node = scene.worker()
    _freeze(_raylet(node))
    scene.settle("it goes on")
    return node.ip


def kill_node(scene: Scene) -> str:
    """Everything on a node ends; the node comes back."""
    node = scene.worker()
    scene.load.excuse(node.ip)
    node.die()
    scene.settle("it ends")
    scene.restart(node)
    return node.ip


def cut_link(scene: Scene) -> str:
    """Nobody reaches a node for a while; nobody says so. Shorter than anybody takes it for lost, or longer."""
    node = scene.worker()
    scene.load.excuse(node.ip)
    node.cut()
    if scene.random.random() < 0.5:
        time.sleep(1)
    else:
        scene.settle("its link is cut")
    node.mend()
    scene.back(node, "its link is there again")
    return node.ip


def lose_node(scene: Scene) -> str:
    """A node goes silent, and is gone: its link is cut first. It comes back anew."""
    node = scene.worker()
    scene.load.excuse(node.ip)
    node.cut()
    scene.settle("its link is cut")
    node.die()
    node.mend()
    scene.restart(node)
    return node.ip


def drain_node(scene: Scene) -> str:
    """Ray is told to drain it, as an autoscaler does; then it ends, and comes back."""
    node, machines = scene.worker(), scene.machines
    command = [str(BIN / "ray"), "drain-node", f"--address={machines.gcs}", f"--node-id={node.ray_id()}"]
    command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=60"]
    done = subprocess.run(
        machines.head.inside(command), env=machines.head.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    began = time.monotonic()
    until(lambda: node.ip not in scene.answering(), "its proxy gives notice, as a load balancer hears", TRUE_S)
    scene.events["it gives notice"] = round(time.monotonic() - began, 1)
    scene.load.excuse(node.ip)
    until(lambda: not scene.serving_on(node), "the node is empty", TRUE_S)
    node.die()
    scene.settle("it ends")
    scene.restart(node)
    return node.ip


def fill_disk(scene: Scene) -> str:
    """A node's disk is full when one of its replicas ends; then there is room again."""
    pid, node = scene.replica()
    node.fill_disk()
    os.kill(pid, signal.SIGKILL)
    try:
        scene.settle("it is full, and a replica is killed")
    finally:
        node.clear_disk()
    scene.settle("there is room again")
    return node.ip


def set_clock(scene: Scene) -> str:
    """A node's clock jumps an hour forward or back, and after a while to where it was."""
    node = scene.random.choice(scene.living())
    node.set_clock(scene.random.choice([HOUR, -HOUR]))
    time.sleep(2)
    scene.settle("its clock has jumped")
    node.set_clock(0)
    time.sleep(2)
    scene.settle("its clock has jumped back")
    return node.ip


FAULTS: dict[str, Callable[[Scene], str]] = {
    "kill a replica": kill_replica,
    "freeze a replica": freeze_replica,
    "kill a proxy": kill_proxy,
    "freeze a proxy": freeze_proxy,
    "kill the controller": kill_controller,
    "freeze the controller": freeze_controller,
    "silence the GCS": silence_gcs,
    "lose the head": lose_head,
    "kill a raylet": kill_raylet,
    "freeze a raylet": freeze_raylet,
    "kill a node": kill_node,
    "cut a link": cut_link,
    "lose a node": lose_node,
    "drain a node": drain_node,
    "fill a disk": fill_disk,
    "set a clock": set_clock,
}


def _freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    with contextlib.suppress(ProcessLookupError):  # it was replaced meanwhile
        os.kill(pid, signal.SIGCONT)


def _raylet(node: Node) -> int:
    return next(pid for pid in node.processes() if "raylet/raylet" in title_of(pid))
