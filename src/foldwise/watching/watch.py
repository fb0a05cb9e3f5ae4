"""watch(): the checks for a training loop of the user's own.

What happens in every step is only counted: passes by a hook of the network, steps by a hook of optimizers. Few steps
are watched closely: then parameters tell when a gradient comes, which may mean to wait for the device, and optimizers
before they step. From time to time the weights are copied. All measuring is done with copies, when findings are asked
for.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, overrides
from torch.compiler import is_compiling
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from foldwise.checks.finding import Finding
from foldwise.checks.loop import Loop, Parameter
from foldwise.checks.order import findings_of, warn_of
from foldwise.checks.sight import Sight
from foldwise.errors import NetworkError
from foldwise.watching.likeness import Likeness, chance
from foldwise.watching.losses import Ear, Losses, epoch_of
from foldwise.watching.tally import EVERY, Tally, Window, norm_of, not_zero

MODES = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


def watch(
    model: nn.Module,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    loss_fn: Callable[..., Any] | None = None,
) -> Watch:
    """Watch a PyTorch training loop, and find what is wrong with it.

    The loop stays as it is. The network, also a compiled one, mixed precision, gradient scaling and accumulation,
    closures and Lightning modules may be used as ever. Training is the same to the last bit, and all hooks are removed
    at the end, also after an exception.

    Args:
        model: the network that is trained. Rows are the first axis of what it is given and gives.
        optimizer: what trains it, one or several. Others that hold parameters of the network are met when they step.
        loss_fn: the loss. The loop is listened to for what it computes, so it may be left out; a module with
            parameters of its own makes these part of what must be held by an optimizer.

    Returns:
        A context. Its `findings` can be asked for inside and afterwards; causes come first.

    Raises:
        NetworkError: the model is no `torch.nn.Module`.

    >>> from torch.nn import functional as F
    >>> inputs, targets = torch.linspace(-1, 1, 64)[:, None], torch.linspace(-1, 1, 64)[:, None].square()
    >>> net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> optimizer = torch.optim.Adam(net.parameters())
    >>> with watch(net, optimizer, F.mse_loss) as watched:
    ...     for _ in range(20):
    ...         F.mse_loss(net(inputs), targets).backward()  # and no optimizer.zero_grad()
    ...         optimizer.step()
    >>> watched.findings[0].code
    'gradients-not-zeroed'
    """
    return Watch(model, optimizer, loss_fn)


class Watch:
    """A loop that is watched, see `watch`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        loss_fn: Callable[..., Any] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise NetworkError(
                f"`model` must be a torch.nn.Module; got {type(model).__name__}.",
                hint="watch(model, optimizer, loss_fn)",
            )
        self.model = model
        self.network: nn.Module = getattr(model, "_orig_mod", model)  # what torch.compile wrapped
        self.loss_fn = loss_fn
        self.given = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer or [])
        self.open = False

    def __enter__(self) -> Watch:
        self.tally = Tally(window=Window(None))
        self.optimizers: dict[Optimizer, bool] = dict.fromkeys(
            self.given, True
        )  # whether they are about the network
        self.likeness = Likeness(self.network)
        self.began = {n: p.detach().clone() for n, p in _parameters(self.network)}
        self.stepping = 0  # optimizers in their step: one may call another
        self.before: Any = None  # the hook before steps, in force where something waits for them
        self.inside = False  # a step was seen inside another, so that it stays in force
        self.idle: Optimizer | None = None  # whose steps, and passes before them, need only be counted
        self.due = 0  # until so many have been taken
        self.next_window, self.next_picture = 1, 1
        self.found: list[Finding] | None = None
        self.witnesses: list[Any] = []
        self.learning: list[Tensor] = []  # what the witnesses stand at
        self.lingering: Any = None
        self.losses, self.ear = Losses(), Ear()
        self.modes = overrides._len_torch_function_stack()
        self.open = True
        self.handles = [
            *self._hooks_for_passes(),
            register_optimizer_step_post_hook(Eye(self, Watch._after_step)),
        ]
        self._call_witnesses()
        self._wait_for_step()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open = False
        try:
            with torch.no_grad():
                self._stop_listening()
                try:
                    self.likeness.picture(self.clock)
                except (
                    Exception
                ) as problem:  # the training is done, and must not fail for a copy of its network
                    warnings.warn(f"the network could not be copied at the end: {problem}", stacklevel=2)
                self.record = self.loop()
        finally:
            self._dismiss_witnesses()
            self._wait_no_more()
            for handle in self.handles:
                handle.remove()
            self.handles = []

    @property
    def findings(self) -> list[Finding]:
        """Run all checks over what was seen so far."""
        if self.open or self.found is None:
            with chance(self.network):
                sight, was = self.sight(), self.open
                self.open = False  # what checks train is none of the loop's
                try:
                    self.found = findings_of(sight, broken=warn_of)
                finally:
                    self.open = was
        return self.found

    def __repr__(self) -> str:
        return repr(self.findings)

    @property
    def clock(self) -> int:
        """Count the steps; where none are taken by an optimizer, the backward passes."""
        return self.tally.steps or self.tally.whole().backwards

    def sight(self) -> Sight:
        """Show what was seen so far as checks see it."""
        if self.open:
            self._stop_listening()
        likeness = self.likeness
        return Sight(
            network=None if likeness.outgrown else likeness.as_network(),
            looks=() if likeness.outgrown else likeness.looks(),
            curve=self.losses.curve(self.clock, self.tally.rates, self.tally.validations),
            loop=self.loop() if self.open else self.record,
        )

    def loop(self) -> Loop:
        """Give the record of what the loop did so far."""
        tally = self.tally.whole()
        held = [p for own in self._own() for group in own.param_groups for p in group["params"]]
        names = {id(p): name for name, p in self._watched_parameters()}
        heard = self.likeness.heard
        counted = {
            name: value
            for name, value in vars(tally).items()
            if name in Loop.__dataclass_fields__ and name not in ("rates", "norms")
        }
        return Loop(
            **counted,
            optimizer=bool(self._own()),
            modes=tuple(
                name for name, m in self.network.named_modules() if isinstance(m, MODES) and _matters(m)
            ),
            parameters=tuple(
                self._seen_of(name, p, {id(h) for h in held}) for name, p in self._watched_parameters()
            ),
            foreign=tuple(tuple(p.shape) for p in held if id(p) not in names),
            rates=np.array(tally.rates),
            norms=np.array(tally.norms),
            epoch=epoch_of(tally.steps, tally.validations),
            options=tuple(
                {key: value for key, value in group.items() if key != "params"}
                for own in self._own()
                for group in own.param_groups
            ),
            reduction="" if heard is None else heard.reduction,
        )

    def _own(self) -> list[Optimizer]:
        return [optimizer for optimizer, about in self.optimizers.items() if about]

    def _watched_parameters(self) -> list[tuple[str, Tensor]]:
        found = _parameters(self.network)
        if isinstance(self.loss_fn, nn.Module) and (more := _parameters(self.loss_fn)):
            known = {id(p) for _, p in found}
            found += [(f"loss.{name}", p) for name, p in more if id(p) not in known]
        return found

    def _seen_of(self, name: str, p: Tensor, held: set[int]) -> Parameter:
        began = self.began.get(name)
        same = began is not None and began.shape == p.shape and torch.equal(began, p.detach())
        return Parameter(
            name,
            tuple(p.shape),
            p.requires_grad,
            id(p) in held,
            name in self.tally.reached,
            not same,
            _fresh(began),
        )

    def _hooks_for_passes(self) -> list[Any]:
        """Hook the network; where it has a `training_step`, which may leave the network's own call out, its parts too.

        Of modules that run inside one another only the outermost counts; parts without parameters are losses, metrics.
        """
        self.running = 0
        self.parts: list[nn.Module] = []
        if callable(getattr(self.network, "training_step", None)):
            self.parts = [m for m in self.network.children() if any(True for _ in m.parameters())]
        modules = [self.model, *self.parts]
        self.nested = len(modules) > 1
        found = [m.register_forward_pre_hook(Eye(self, Watch._enters)) for m in modules]
        if self.nested:
            found += [m.register_forward_hook(Eye(self, Watch._leaves), always_call=True) for m in modules]
        return found

    def _enters(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        if self.idle is not None and torch.is_grad_enabled():  # as in nearly all passes
            self.tally.passed(training=module.training)
            return
        if self.nested:
            self.running += 1
            if self.running > 1:
                return
        if not torch.is_grad_enabled():
            self.tally.passed_in_the_dark(training=module.training)
            return
        self.tally.passed(training=module.training)
        if self.ear.listening and (self.ear.root is not None or self.model is not self.network):
            self._stop_listening_to_loss()
        if module in self.parts and len(self.parts) == 1 and not self.clock:
            self._turn_to(module)
        if self.lingering is not None or module not in (self.model, self.likeness.network):
            return
        if self.likeness.curious or (self.clock >= self.losses.next and not self.ear.listening):
            self.lingering = module.register_forward_hook(Eye(self, Watch._listens), with_kwargs=True)

    def _turn_to(self, part: nn.Module) -> None:
        """Take the one part that has parameters for the network, where that itself is not called."""
        if self.likeness.network is not part:
            self.likeness = Likeness(part)

    def _leaves(self, module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
        self.running -= 1

    def _listens(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], out: Any) -> None:
        self.lingering.remove()
        self.lingering = None
        # a mode that the user entered for this pass would take ours for its own when it is left
        free = not self.ear.listening and overrides._len_torch_function_stack() <= self.modes
        if self.likeness.curious:
            self.likeness.listen(given, named, out)
        if free:
            self.ear.begin(self.clock)
            self._wait_for_step()

    def _stop_listening(self) -> None:
        if self.lingering is not None:  # the pass ended in an exception
            self.lingering.remove()
            self.lingering = None
        self._stop_listening_to_loss()
        self.likeness.understand()

    def _stop_listening_to_loss(self) -> None:
        """Keep the loss that was heard, if a backward pass began from it."""
        if self.ear.listening and (loss := self.ear.end()) is not None and loss.numel() == 1:
            self.losses.note(self.ear.since, loss)

    def _call_witnesses(self) -> None:
        learning = [(name, p) for name, p in self._watched_parameters() if p.requires_grad]
        self.learning = [p for _, p in learning]
        for name, p in learning:
            if name not in self.began:  # a layer that was made since
                self.began[name] = p.detach().clone()
        self.witnesses = [p.register_hook(Eye(self, Watch._came_back, name, p)) for name, p in learning]

    def _dismiss_witnesses(self) -> None:
        for handle in self.witnesses:
            handle.remove()
        self.witnesses = []

    def _came_back(self, name: str, parameter: Tensor, gradient: Tensor) -> None:
        self.tally.came_back(name, parameter, gradient)

    def _wait_for_step(self) -> None:
        if self.before is None:
            self.before = register_optimizer_step_pre_hook(Eye(self, Watch._before_step))

    def _wait_no_more(self) -> None:
        if self.before is not None:
            self.before.remove()
            self.before = None

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.stepping = 1 if self.stepping == 0 else _steps_going_on()
        own = self.tally.window
        if self.stepping > 1:
            self.inside = True
            return
        self._stop_listening_to_loss()
        if own is None:
            return
        self._stop_listening()
        if own.arrived and self._about(optimizer) and own.optimizer in (None, optimizer):
            own.felt = True
            gradients = [p.grad for p in self.learning if p.grad is not None]
            own.cleared = not any(map(not_zero, gradients))
            if not own.cleared:
                self.tally.norms.append(norm_of(gradients))
            # a backward pass adds to the tensor that it finds; here another one was put in its place
            if own.parameter is not None and own.parameter.grad is not own.found:
                own.emptied = True

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        tally = self.tally
        if optimizer is self.idle and tally.steps + 1 < self.due:  # as in nearly all steps
            tally.stepped(optimizer, _rate(optimizer))
            return
        self.stepping = max(0, self.stepping - 1)
        if self.stepping:
            return
        if not self._about(optimizer):
            if tally.window is not None:
                tally.window.others += 1
            return
        tally.stepped(optimizer, _rate(optimizer))
        if tally.window is None and self.witnesses:
            self._dismiss_witnesses()
        if tally.window is None and tally.steps >= self.next_window:
            self.next_window = tally.steps + min(EVERY, 1 + tally.steps // 3)
            tally.window = Window(optimizer)
            self._call_witnesses()
        elif tally.window is not None and tally.window.optimizer is not optimizer:
            tally.window.others += 1
        if tally.steps >= self.next_picture:
            self.next_picture = tally.steps + 1 + tally.steps // 2
            self._stop_listening()
            self.likeness.picture(tally.steps)
        if tally.window is not None:
            self._wait_for_step()
        elif not self.ear.listening and not self.inside:
            self._wait_no_more()
        self.due = min(self.next_window, self.next_picture, self.losses.next)
        busy = self.before is not None or self.nested or self.likeness.curious
        self.idle = None if busy or tally.steps >= self.due else optimizer

    def _about(self, optimizer: Optimizer) -> bool:
        """Tell whether an optimizer holds anything of the network."""
        if optimizer not in self.optimizers:
            mine = {id(p) for p in self.network.parameters()}
            self.optimizers[optimizer] = any(
                id(p) in mine for g in optimizer.param_groups for p in g["params"]
            )
        return self.optimizers[optimizer]


class Eye:
    """A hook that tells a watch what happens while that is open; in a copy or file of its module it is blind.

    While the network is being compiled it does nothing, so that nothing of it becomes part of the compiled network.
    """

    def __init__(self, watch: Watch, tell: Callable[..., None], *given: Any) -> None:
        self.watch, self.tell = watch, partial(tell, watch, *given)

    def __call__(self, *args: Any) -> None:
        if self.watch.open and not is_compiling():
            self.tell(*args)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _blind_one, ()


def _blind_one() -> Callable[..., None]:
    return _see_nothing


def _see_nothing(*args: Any) -> None:
    """Stand for a hook where there is no watch."""


def _parameters(network: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, p) for name, p in network.named_parameters() if not nn.parameter.is_lazy(p)]


def _steps_going_on() -> int:
    """Count the steps of optimizers that have begun and not ended: one that ended in an exception is not told."""
    count = 0
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        count += frame.f_code.co_name == "wrapper" and frame.f_globals.get("__name__") == Optimizer.__module__
        frame = frame.f_back
    return count


def _rate(optimizer: Optimizer) -> float:
    rates = [group.get("lr", math.nan) for group in optimizer.param_groups]
    if len(rates) == 1 and type(rates[0]) is float:  # at every step of most loops
        return rates[0]
    return max((r for r in rates if not isinstance(r, Tensor)), default=math.nan)


def _matters(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return bool(getattr(module, "track_running_stats", True))


def _fresh(weights: Tensor | None) -> bool:
    """Tell whether weights are drawn evenly from ±1/√inputs, as `nn.Linear` and convolutions begin.

    The deviation of such a draw is 1/√(3·inputs), known to 1 part in √(5/4 · weights); none lies outside.
    """
    if weights is None or weights.ndim < 2 or weights.numel() < 8:
        return False
    bound = weights[0].numel() ** -0.5
    ratio = float(weights.double().square().mean().sqrt()) * 3**0.5 / bound
    return (
        float(weights.abs().max()) <= bound * (1 + 1e-6) and abs(ratio - 1) < 4 / (5 * weights.numel()) ** 0.5
    )
