"""The measurement of `step`, and parity, on a CUDA device."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.engine import ensemble, plain
from benchmarks.engine.networks import NETWORKS
from benchmarks.engine.peer import STEPS_COMPARED, Peer, Variant, World, disagreement
from benchmarks.measure import Missing, alternate, timed
from benchmarks.render import Line, grid, micro, ratio
from benchmarks.subject import Network, Subject, build

METHOD = """As `step`, on one CUDA device, with the stacked engine, the plain loop and the `torch.func` recipe; the
device is waited for at both ends of an epoch. Parity: after 8 steps, with TF32 off, the distance from the same members
on the CPU is at most 1e-4 of the way that they have come."""
PEERS: dict[str, tuple[list[Variant], int]] = {
    "plain": (plain.ON_CUDA, 4),
    "recipe": (ensemble.ON_CUDA, 100),
}


def parity(network: Network) -> float:
    """Train a few steps on the device and on the CPU, and compare."""
    device, processor = (build(network, 10, STEPS_COMPARED * network.batch, d) for d in ("cuda", "cpu"))
    start = processor.weights()
    device.epoch()
    processor.epoch()
    return disagreement(start, processor.weights(), device.weights())


def waited(work: Callable[[], object]) -> Callable[[], None]:
    """Let work begin and end with an idle device."""

    def both_ends() -> None:
        work()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return both_ends


def against(subject: Subject, variants: list[Variant], members: int, pairs: int) -> dict[str, Any]:
    """Find a peer's fastest variant, and measure it in pairs with foldwise."""
    world, batches = World.of(subject).part(members), subject.batches(1)[:members]

    def theirs(peer: Peer) -> float:
        return timed(waited(lambda: peer.epoch(batches)), len(batches) * subject.steps)

    def ours() -> float:
        return timed(waited(subject.epoch), subject.members * subject.steps)

    peers = {name: make(world) for name, make in variants}
    for peer in peers.values():
        theirs(peer)
    times = {name: min(theirs(peer), theirs(peer)) for name, peer in peers.items()}
    best = min(times, key=times.__getitem__)
    ours()
    return {**alternate(lambda: theirs(peers[best]), ours, pairs), "variant": best, "variants": times}


def run(quick: bool) -> dict[str, Any]:
    """Measure all networks, where there is a device."""
    if not torch.cuda.is_available():
        raise Missing("no CUDA device here")
    torch.backends.cuda.matmul.allow_tf32 = False
    found: dict[str, Any] = {"device": torch.cuda.get_device_name(), "networks": {}}
    for network in NETWORKS[:1] if quick else NETWORKS:
        differs, subject = parity(network), build(network, 100, device="cuda")
        peers = {name: against(subject, v, n, 2 if quick else 9) for name, (v, n) in PEERS.items()}
        found["networks"][network.name] = {
            "shape": network.shape,
            "batch": network.batch,
            "engine": subject.how,
            "foldwise": statistics.median(own for p in peers.values() for _, own in p["pairs"]),
            "peers": peers,
            "differs": differs,
        }
    return found


def table(figures: dict[str, Any]) -> str:
    """Lay out microseconds per member and step, ratios and parity."""
    rows = [
        (
            f"{f['shape']}, {f['batch']}",
            f"**{micro(f['foldwise'])}**",
            *(f"{micro(p['peer'])}: {ratio(p)}" for p in f["peers"].values()),
            f"{f['differs']:.0e}",
        )
        for f in figures["networks"].values()
    ]
    heads = ("network, batch", "foldwise", *PEERS, "apart from the CPU")
    return f"{figures['device']}\n\n{grid(heads, rows)}"


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show every network against every peer."""
    return [
        Line(f"a training step on {figures['device']}, {f['shape']}", peer, f"{ratio(p)} as fast")
        for f in figures["networks"].values()
        for peer, p in f["peers"].items()
    ]
