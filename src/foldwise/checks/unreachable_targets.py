"""The network's outputs have bounds that targets lie beyond.

Evidence: outputs on a batch that stop at one value, however large any of the trained weights is made, with either
sign, and however far outputs are pushed by gradients; and the least loss within these bounds against that of outputs
without them. Of scores of classes, whether that of a class which is among the targets is at the bound for all rows.

Why it hurts: behind a sigmoid nothing is below 0 or above 1, behind a ReLU nothing below 0. Targets beyond are never
reached, the outputs saturate, and rows at the bound get no gradient. A score that is at the bound for all rows stays
there: its class is never learned.

How sure: likely, when the bounds cost more than a twentieth of what can be learned at all, or the score of a class is
at the bound for all rows after training; before it that is a hint. Targets within the bounds, such as shares behind a
sigmoid or counts behind a ReLU, are healthy, and so are scores behind a ReLU that are open.

What to try: leave out the activation at the end of the network; targets scaled to its range.

References: Goodfellow, Bengio & Courville 2016, *Deep learning*, section 6.2.2 (output units).
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from foldwise.checks.finding import Finding, Remedy
from foldwise.checks.probe import fewer, forward, mean_loss
from foldwise.checks.progress import best_constant
from foldwise.checks.sight import Network, Sight, run

EXPLAINS = (
    "saturated-units", "dead-units", "start-loss", "overfit-one-batch", "no-gradient", "saturating-activation",
    "few-steps", "rate-too-low", "plateau", "underfitting", "uneven-layers", "vanishing-gradients", "overconfident",
    "within-noise", "unscaled-inputs",
)  # fmt: skip
ROWS = 32
LARGE = 1e3  # times, once and once more
SAME = 1e-3  # of the range of outputs, or of the bound
AT_BOUND = 0.2  # of pushed outputs stop at a bound, if there is one; half of them behind a ReLU
PARAMETERS = 12  # the last of which are pushed
STEPS, CLIMB = 100, 10
COSTS = 0.05  # of the best constant's loss above the least
LEAVE_OUT = Remedy("leave out the activation at the end of the network")
END = 100.0  # far out, where a loss that falls from there to its square has no least value


def find(sight: Sight) -> Finding | None:
    """Look for bounds of the outputs that the loss would have them cross."""
    network = sight.network
    if network is None or network.loss is None or network.targets is None:
        return None
    network = fewer(network, ROWS)
    outputs = run(network.module, network.inputs)
    if outputs.ndim == 0 or not outputs.is_floating_point() or not torch.isfinite(outputs).all():
        return None
    low, high = bounds(network)
    if low == -math.inf and high == math.inf:
        return None
    return _out_of_reach(sight, network, outputs, low, high) or _dead_score(sight, network, low, high)


def _out_of_reach(sight: Sight, network: Network, outputs: Tensor, low: float, high: float) -> Finding | None:
    free = _least(network, outputs, -math.inf, math.inf)
    within = _least(network, outputs, low, high)
    constant = best_constant(network)
    learned = constant - free
    if not learned > 0 or not within - free > COSTS * learned or _endless(network, outputs, learned):
        return None
    return Finding(
        "unreachable-targets",
        "likely",
        f"the outputs of the network stay {_said(low, high)} whatever its weights: on these rows the loss cannot get "
        f"below {within:.3g}, without bounds it could reach {free:.3g}, and a constant has {constant:.3g}",
        trials=sight.about,
        remedies=(LEAVE_OUT, Remedy("scale targets to its range")),
    )


def _dead_score(sight: Sight, network: Network, low: float, high: float) -> Finding | None:
    """Look for a class whose score stays at the lower bound, though it is among the targets."""
    look = sight.looks[-1] if sight.looks else None
    if look is None or look.outputs is None or look.targets is None or look.targets.is_floating_point():
        return None
    targets = look.targets
    scores = network.ended(look.outputs)
    if low == -math.inf or high < math.inf or scores.ndim != 2 or targets.ndim != 1:
        return None
    known = [int(c) for c in targets.unique() if 0 <= int(c) < scores.shape[1]]
    dead = [c for c in known if bool((scores[:, c] <= low + SAME * max(1.0, abs(low))).all())]
    if not dead:
        return None
    named = ", ".join(str(c) for c in dead[:3])
    return Finding(
        "unreachable-targets",
        "likely" if look.step > 0 else "hint",
        f"the scores of classes stay {_said(low, high)} whatever the weights of the network, and that of class {named}"
        f"{' …' if len(dead) > 3 else ''} (from 0) is {low:.3g} in all {len(scores)} rows "
        f"{f'after {look.step} steps' if look.step else 'at the start'}, and gets no gradient",
        trials=sight.about,
        remedies=(LEAVE_OUT,),
    )


def _said(low: float, high: float) -> str:
    if low == -math.inf:
        return f"at or below {high:.3g}"
    return f"at or above {low:.3g}" if high == math.inf else f"between {low:.3g} and {high:.3g}"


def bounds(network: Network) -> tuple[float, float]:
    """Give what outputs stop at, below and above, whatever the trained weights are; infinite where at nothing.

    >>> given = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    >>> bounds(Network(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), given))
    (0.0, inf)
    """
    module = copy.deepcopy(network.module)
    last = _last_weights(module, network)
    if not last:
        return -math.inf, math.inf
    far = _pushed(module, last, network, LARGE)
    farther = _pushed(module, last, network, LARGE**2)
    low, high = _stop(far, farther, lowest=True), _stop(far, farther, lowest=False)
    if low == -math.inf and high == math.inf:
        return low, high
    # what the last layer cannot do, a factor behind it or a way around it may
    trained = [p for p in module.parameters() if p.requires_grad][-PARAMETERS:]
    moved = torch.cat([_climbed(module, network), *(_pushed(module, [p], network, LARGE) for p in trained)])
    edge = SAME * max(1.0, *(abs(b) for b in (low, high) if math.isfinite(b)))
    return (
        low if float(moved.min()) >= low - edge else -math.inf,
        high if float(moved.max()) <= high + edge else math.inf,
    )


def _last_weights(module: nn.Module, network: Network) -> list[nn.Parameter]:
    layers = forward(module, network.inputs[:2]).weighted
    return [p for p in layers[-1].layer.parameters() if p.requires_grad] if layers else []


@torch.no_grad()
def _pushed(module: nn.Module, parameters: list[nn.Parameter], network: Network, by: float) -> Tensor:
    """Run the network with parameters that are so many times as large, with either sign; those that are 0 become it."""
    before, found = [p.clone() for p in parameters], []
    for sign in (1.0, -1.0):
        for p, was in zip(parameters, before, strict=True):
            p.copy_(sign * by * was if was.any() else torch.full_like(was, sign * by))
        found.append(run(module, network.inputs))
    for p, was in zip(parameters, before, strict=True):
        p.copy_(was)
    return torch.cat(found)


def _stop(far: Tensor, farther: Tensor, *, lowest: bool) -> float:
    """Give the end at which outputs stop however far they are pushed; infinite: there is none."""
    ends = [float(t.min() if lowest else t.max()) for t in (far, farther)]
    none = -math.inf if lowest else math.inf
    if not all(map(math.isfinite, ends)) or abs(ends[0] - ends[1]) > SAME * max(1.0, abs(ends[0])):
        return none
    there = (farther - ends[1]).abs() <= SAME * max(1.0, abs(ends[1]))
    return ends[1] if there.double().mean() > AT_BOUND else none


def _climbed(module: nn.Module, network: Network) -> Tensor:
    """Push outputs up, and down, by steps on all trained weights, and give where they were in the end."""
    found = []
    for sign in (1.0, -1.0):
        twin = copy.deepcopy(module).eval()
        optimizer = torch.optim.Adam([p for p in twin.parameters() if p.requires_grad], lr=0.1)
        for _ in range(CLIMB):
            optimizer.zero_grad()
            with torch.enable_grad():
                total = -sign * twin(network.inputs).double().mean()
            if not total.requires_grad:
                break
            total.backward()
            optimizer.step()
        found.append(run(twin, network.inputs))
    return torch.cat(found)


def _least(network: Network, outputs: Tensor, low: float, high: float) -> float:
    """Give the least loss that is found for outputs of their own between bounds, from several starts."""
    targets, starts = network.targets, [outputs]
    if targets is not None and targets.is_floating_point() and targets.numel() == outputs.numel():
        starts.append(targets.reshape(outputs.shape).to(outputs))
    return min(_descended(network, start, low, high) for start in starts)


def _descended(network: Network, start: Tensor, low: float, high: float) -> float:
    own = start.detach().clone().clamp(low, high).requires_grad_()
    optimizer, least = torch.optim.Adam([own], lr=0.3), math.inf
    for _ in range(STEPS):
        try:
            with torch.enable_grad():
                loss = mean_loss(network, own)
        except (RuntimeError, ValueError):  # a loss of probabilities refuses what is none
            break
        value = float(loss.detach())
        least = min(least, value) if math.isfinite(value) else least
        if not loss.requires_grad or not math.isfinite(value):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            own.clamp_(low, high)
    return least


def _endless(network: Network, outputs: Tensor, learned: float) -> bool:
    """Tell whether the loss has no least value: it falls further along the way in which it falls."""
    own = outputs.detach().clone().requires_grad_()
    with torch.enable_grad():
        loss = mean_loss(network, own)
    if not loss.requires_grad:
        return True
    (slope,) = torch.autograd.grad(loss, [own])
    size = float(slope.abs().max())
    try:
        with torch.no_grad():
            near, far = (float(mean_loss(network, outputs - by * slope / size)) for by in (END, END**2))
    except (RuntimeError, ValueError, ZeroDivisionError):
        return False
    return far < near - COSTS * learned
