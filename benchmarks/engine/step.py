"""What a training step costs per member, against peers that train the same members on the same batches."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import threadpoolctl
import torch

from benchmarks.engine import ensemble, jaxed, plain
from benchmarks.engine.limit import limit
from benchmarks.engine.networks import NETWORKS
from benchmarks.engine.peer import STEPS_COMPARED, Peer, Variant, World, disagreement
from benchmarks.measure import CORES, alternate, timed
from benchmarks.render import Line, grid, micro, ratio, share, times
from benchmarks.subject import Network, build

METHOD = """100 members (5 folds × 20 seeds), ReLU, cross-entropy, Adam, float32, 1536 training rows each, all cores.
Microseconds per member and step, median over pairs of epochs in turn; in brackets the range of the ratios. Peers get
prepared rows and row orders for nothing, foldwise makes both. Each peer is the fastest of its variants here:

- *plain*: a loop in plain PyTorch, one member after another, 1 or 2 threads, three forms of Adam. Two such loops in
  two processes would take half as long at best;
- *recipe*: `torch.func`'s ensembling recipe (vmap over stacked modules), 1 or 2 threads;
- *JAX (one program)*: jit of a scan over steps of vmap over all members;
- *JAX (chunks)*: the same in chunks of members, one chunk per core at once from two threads, the best of eight ways.
  Compilation is not counted, and shown;
- *limit*: nothing but the step's matrix products, by the fastest of torch, numpy and JAX on both cores in cache.

Equal results: all start from the same weights, and after 8 steps on the same batches the distance between a member of
foldwise and of the peer is at most 1e-4 of the way that it has come; later, rounding alone drives float32 networks
apart."""
PEERS: dict[str, tuple[list[Variant], int]] = {
    "plain": (plain.VARIANTS, 4),
    "recipe": (ensemble.VARIANTS, 100),
    "JAX (one program)": (jaxed.VARIANTS[:1], 100),
    "JAX (chunks)": (jaxed.VARIANTS[1:], 100),
}
"""Variants, and how many members are trained: a loop takes as long for each."""


def compare(network: Network, make: Callable[[World], Peer], members: int = 10) -> float:
    """Train a few steps with foldwise and a peer, and compare."""
    subject = build(network, members, training_rows=STEPS_COMPARED * network.batch)
    world, batches = World.of(subject), subject.batches(1)
    peer = make(world)
    peer.epoch(batches)
    subject.epoch()
    return disagreement(world.start, subject.weights(), peer.weights())


class Turns:
    """Epochs of one network, in turn."""

    def __init__(self, network: Network, members: int) -> None:
        torch.set_num_threads(CORES)
        self.network, self.subject = network, build(network, members)
        self.world = World.of(self.subject)
        self.batches = self.subject.batches(1)
        self.first = self.ours() * members * self.subject.steps

    def ours(self) -> float:
        """Time an epoch of foldwise, per member and step."""
        torch.set_num_threads(CORES)
        return timed(self.subject.epoch, self.subject.members * self.subject.steps)

    def theirs(self, peer: Peer, members: int) -> float:
        """Time an epoch of a peer, per member and step."""
        own = self.batches[:members]
        return timed(lambda: peer.epoch(own), len(own) * self.subject.steps)

    def against(self, variants: list[Variant], members: int, pairs: int) -> dict[str, Any]:
        """Find the peer's fastest variant, and measure it in pairs with foldwise."""
        taken, warm = {}, {}
        for name, make in variants:
            peer = make(self.world.part(members))
            warm[name] = self.theirs(peer, members) * members * self.subject.steps
            taken[name] = min(self.theirs(peer, members) for _ in range(2))
        best = min(taken, key=taken.__getitem__)
        make = dict(variants)[best]
        differs = compare(self.network, make)
        peer = make(self.world.part(members))
        self.theirs(peer, members)
        found = alternate(lambda: self.theirs(peer, members), self.ours, pairs)
        return {**found, "variant": best, "first_epoch": warm[best], "variants": taken, "differs": differs}


def measure(network: Network, quick: bool) -> dict[str, Any]:
    """Measure one network against all peers."""
    best = limit(network, quick)
    turns = Turns(network, 20 if quick else 100)
    peers = {
        name: turns.against(
            variants[:2] if quick else variants, min(members, turns.subject.members), 2 if quick else 9
        )
        for name, (variants, members) in PEERS.items()
    }
    return {
        "shape": network.shape,
        "batch": network.batch,
        "members": turns.subject.members,
        "engine": turns.subject.how,
        "first_epoch": turns.first,
        "foldwise": statistics.median(own for found in peers.values() for _, own in found["pairs"]),
        "limit": best,
        "peers": peers,
    }


def run(quick: bool) -> dict[str, Any]:
    """Measure all networks; numpy's matrix products are held to one thread, as each core does its own."""
    found = {}
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        for network in NETWORKS:
            found[network.name] = measure(network, quick)
            print(f"{network.name} done", flush=True)
    return found


def table(figures: dict[str, Any]) -> str:
    """Lay out microseconds, ratios, the limit, warm-up and variants."""
    heads = ["network, batch", "foldwise", *PEERS, "limit", "of the limit"]
    laid_out = grid(heads, [
        [
            f"{f['shape']}, {f['batch']}",
            f"**{micro(f['foldwise'])}**",
            *(f"{micro(p['peer'])}: {ratio(p)}" for p in f["peers"].values()),
            f"{micro(f['limit']['seconds'])} ({f['limit']['gflops']:.0f} GFLOP/s)",
            share(f["limit"]["seconds"] / f["foldwise"]),
        ]
        for f in figures.values()
    ])  # fmt: skip
    how = grid(("network", "trained by", "fastest variant", "first epoch", "apart after 8 steps"), [
        row
        for name, f in figures.items()
        for row in (
            (name, "foldwise", f["engine"], f"{f['first_epoch']:.2f} s", ""),
            *(
                ("", peer, p["variant"], f"{p['first_epoch']:.2f} s", f"{p['differs']:.0e}")
                for peer, p in f["peers"].items()
            ),
        )
    ])  # fmt: skip
    about = "First epoch: of all members that the peer trained (plain: 4), with compilation."
    return f"{laid_out}\n\n{about}\n\n{how}"


def summary(figures: dict[str, Any]) -> list[Line]:
    """Show every network in a line: medians against every peer, and the share of the limit."""
    lines = []
    for f in figures.values():
        what = f"a training step, {f['members']} × {f['shape']}, batch {f['batch']}, {micro(f['foldwise'])} µs for each"
        reached = share(f["limit"]["seconds"] / f["foldwise"])
        figure = " / ".join([*map(times, f["peers"].values()), reached])
        lines.append(Line(what, " / ".join([*f["peers"], "matrix products alone"]), f"{figure} as fast"))
    return lines
