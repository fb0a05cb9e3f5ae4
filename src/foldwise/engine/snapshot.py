"""All that training changes, as plain values and tensors, and back; whatever the engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foldwise.engine.album import Album, Picture
from foldwise.engine.field import Field
from foldwise.engine.stack import Begun, Notes, Stack
from foldwise.engine.state import DIVERGED, RUNNING, STOPPED, Kept, State
from foldwise.errors import NetworkError, PlanError
from foldwise.plans.course import Course
from foldwise.plans.policy import Decision, Policy
from foldwise.plans.retrace import retrace
from foldwise.settings import Settings

ROUND_BY_ROUND = ("training_loss", "validation_loss", "score")  # what notes have of every member


@dataclass(frozen=True)
class Decided:
    """What was done after a round: which trials stopped and why, and which started."""

    round: int
    stop: tuple[tuple[int, str], ...]
    start: tuple[Settings, ...]


@dataclass(frozen=True)
class Way:
    """A course without its numbers: how many epochs it has noted, the one before training included."""

    noted: int
    lost: tuple[int, ...]
    ended: str


@dataclass(frozen=True)
class Broken:
    """An epoch that was broken off, without its numbers."""

    places: tuple[int, ...]
    left: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Shelf:
    """A stack without its tensors: by what it is known, how many members each note is of, and what else it notes."""

    how: str
    chunk: int | None
    compile: str
    members: tuple[tuple[int, int, int], ...]
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    notes: tuple[tuple[int, tuple[str, ...]], ...]
    broken: Broken | None


@dataclass(frozen=True)
class Pictured:
    """A picture of a member without its tensors."""

    trial: int
    epoch: int
    step: int


@dataclass(frozen=True)
class Snapshot:
    """A field at rest: between two rounds, or between two parts of a round."""

    gone: tuple[float, ...]
    seconds: float
    decided: tuple[Decided, ...]
    courses: tuple[Way, ...]
    stacks: tuple[Shelf, ...]
    waiting: tuple[int, ...]
    """The stacks whose epoch of the present round is still to come, or broken off."""
    pictures: tuple[Pictured, ...] | None = None
    """What the album has; None where none is kept."""


def snapshot(field: Field) -> tuple[Snapshot, dict[str, Tensor]]:
    """Write down a field; tensors that are on the CPU already share its memory, so store them before it goes on."""
    plain = Snapshot(
        gone=tuple(field.gone),
        seconds=field.seconds,
        decided=tuple(
            Decided(number, tuple(done.stop.items()), tuple(done.start))
            for number, done in field.decided.items()
        ),
        courses=tuple(Way(len(c.curve), tuple(c.lost), c.ended) for c in field.courses),
        stacks=tuple(_shelf(stack) for stack in field.stacks),
        waiting=tuple(n for n, stack in enumerate(field.stacks) if stack in field.waiting),
        pictures=None if field.album is None else tuple(_pictured(field.album)),
    )
    tensors = _curves(field.courses) | _album_tensors(field.album)
    for number, stack in enumerate(field.stacks):
        tensors |= {f"stack{number}.{name}": t for name, t in _tensors(stack).items()}
    return plain, {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _pictured(album: Album) -> Iterator[Pictured]:
    for trial, mine in album.pictures.items():
        yield from (Pictured(trial, p.epoch, p.step) for p in mine)


def _album_tensors(album: Album | None) -> dict[str, Tensor]:
    every = [] if album is None else [p for mine in album.pictures.values() for p in mine]
    return {
        f"album{number}.{name}": tensor
        for number, p in enumerate(every)
        for name, tensor in (
            ("parameters", p.parameters),
            *((f"buffers.{n}", b) for n, b in p.buffers.items()),
        )
    }


def _shelf(stack: Stack) -> Shelf:
    begun, layout = stack.begun, stack.cohort.layout
    return Shelf(
        how=stack.engine.how,
        chunk=stack.engine.chunk,
        compile=stack.engine.compile,
        members=tuple((m.trial, m.fold, m.seed) for m in stack.members),
        layout=tuple(zip(layout.names, layout.shapes, strict=True)),
        notes=tuple((len(notes.places), tuple(notes.others)) for notes in stack.notes),
        broken=None if begun is None else Broken(tuple(begun.places), tuple(map(tuple, begun.left))),
    )


def _curves(courses: Sequence[Course]) -> dict[str, Tensor]:
    """Lay the numbers of all courses one after another, in float64, which JSON would not keep (∞, NaN)."""
    inside = [own for c in courses for own in c.inside]
    return {
        "courses.curve": torch.tensor([x for c in courses for x in c.curve], dtype=torch.float64),
        "courses.scores": torch.tensor([own for c in courses for own in c.scores], dtype=torch.float64),
        **({"courses.inside": torch.tensor(inside, dtype=torch.float64)} if inside else {}),
    }


def _tensors(stack: Stack) -> dict[str, Tensor]:
    begun = {} if stack.begun is None else _begun_tensors(stack.begun)
    return {**_state_tensors(stack), **_note_tensors(stack.notes), **begun}


def _state_tensors(stack: Stack) -> dict[str, Tensor]:
    inside = stack.inside.kept
    return {
        **named("state", stack.cohort.state),
        **named("kept", stack.kept),
        **({} if inside is None else named("inside", inside)),
    }


def named(what: str, record: State | Kept) -> dict[str, Tensor]:
    """Name all tensors of a record; they share its memory."""
    out: dict[str, Tensor] = {}
    for f in fields(record):
        value = getattr(record, f.name)
        own = value if isinstance(value, Mapping) else None
        out |= (
            {f"{what}.{f.name}": value}
            if own is None
            else {f"{what}.{f.name}.{n}": t for n, t in own.items()}
        )
    return out


def _begun_tensors(begun: Begun) -> dict[str, Tensor]:
    return {"begun.losses": begun.losses, **{f"begun.counted.{n}": t for n, t in begun.counted.items()}}


def _note_tensors(notes: Sequence[Notes]) -> dict[str, Tensor]:
    """Lay all notes one after another; what a note does not have is NaN."""

    def joined(parts: Sequence[Any]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)) if parts else torch.zeros(0, dtype=torch.float64)

    others = dict.fromkeys(name for own in notes for name in own.others)
    return {
        "notes.places": torch.tensor([p for own in notes for p in own.places], dtype=torch.int64),
        "notes.epoch": joined([own.epoch for own in notes]).long(),
        **{f"notes.{name}": joined([getattr(own, name) for own in notes]) for name in ROUND_BY_ROUND},
        **{
            f"notes.others.{name}": joined(
                [own.others.get(name, np.full(len(own.places), np.nan)) for own in notes]
            )
            for name in others
        },
    }


# And back


def restore(field: Field, policy: Policy, plain: Snapshot, tensors: Mapping[str, Tensor]) -> None:
    """Bring a fresh field of the same plan, and a fresh policy, to where another field was.

    Nothing is believed: every name, shape, type and number must be what a field of this plan can have. Raises
    ValueError with the first that is not; the field is then of no use. What is no damage, and no older snapshot would
    cure, is a FoldwiseError: another network of the user's own, another engine, a policy that decides otherwise.
    """
    for decided in plain.decided:
        if decided.start:
            field.start(decided.start)
    for stack, shelf in zip(field.stacks, plain.stacks, strict=False):
        _refuse_others(stack, shelf)
        stack.engine.chunk, stack.engine.compile = shelf.chunk, shelf.compile
    unread = dict(tensors)
    for problem in _structure_problems(field, plain):
        raise ValueError(problem)
    _restore_courses(field, plain, unread)
    for number, (stack, shelf) in enumerate(zip(field.stacks, plain.stacks, strict=True)):
        own = _taken(unread, f"stack{number}.")
        for problem in _restore_stack(stack, shelf, own):
            raise ValueError(f"stack {number}: {problem}")
    _restore_album(field, plain, unread)
    if unread:
        raise ValueError(f"it has tensors that no such study has: {sorted(unread)[0]}")
    field.waiting = [field.stacks[n] for n in plain.waiting]
    field.decided = {d.round: Decision(dict(d.stop), d.start) for d in plain.decided}
    field.gone, field.seconds = list(plain.gone), plain.seconds
    retrace(policy, field.courses, field.decided, field.gone, field.plan.folds)


def _refuse_others(stack: Stack, shelf: Shelf) -> None:
    """Refuse to go on with another network or another engine, which nobody would notice."""
    fresh = _shelf(stack)
    if shelf.layout != fresh.layout and stack.cohort.shared.network == "custom":
        raise NetworkError(
            "the network has other parameters than the one that was trained before.",
            hint="give the same network as then",
        )
    if shelf.how != fresh.how:
        raise PlanError(
            f"members that were trained {shelf.how} would go on {fresh.how}, which is not the same to the last bit.",
            hint="go on where the study began, with the same versions",
        )


def _taken(tensors: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """Take the tensors out whose names begin so."""
    return {n.removeprefix(head): tensors.pop(n) for n in [*tensors] if n.startswith(head)}


def _structure_problems(field: Field, plain: Snapshot) -> Iterator[str]:
    numbers = [d.round for d in plain.decided]
    if sorted({*numbers}) != numbers or not all(0 < n <= len(plain.gone) for n in numbers):
        yield "its decisions are not those of its rounds"
    if not all(math.isfinite(gone) and gone >= 0 for gone in plain.gone):
        yield "the times of its rounds are none"
    if any(not 0 <= trial < len(field.courses) for d in plain.decided for trial, _ in d.stop):
        yield "its decisions stop trials that are not there"
    if not (math.isfinite(plain.seconds) and plain.seconds >= 0):
        yield "its time is no time"
    if len(plain.courses) != len(field.courses):
        yield "its courses are not those of its trials"
    for course, way in zip(field.courses, plain.courses, strict=True):
        if not 1 <= way.noted <= course.settings.epochs + 1:
            yield f"trial {course.trial + 1} has {way.noted} scores for {course.settings.epochs} epochs"
        if not {*way.lost} <= {*range(field.plan.folds)}:
            yield f"trial {course.trial + 1} lost folds that are not there"
    if len(plain.stacks) != len(field.stacks):
        yield "its stacks are not those of its plan"
    if sorted({*plain.waiting}) != [*plain.waiting] or not {*plain.waiting} <= {*range(len(field.stacks))}:
        yield "stacks wait that are not there"
    for number, (stack, shelf) in enumerate(zip(field.stacks, plain.stacks, strict=True)):
        yield from (f"stack {number}: {problem}" for problem in _shelf_problems(stack, shelf))
        if shelf.broken is not None and number not in plain.waiting:
            yield f"stack {number}: its epoch is broken off, and it does not wait"


def _shelf_problems(stack: Stack, shelf: Shelf) -> Iterator[str]:
    fresh = _shelf(stack)
    if shelf.members != fresh.members:
        yield "its members are not those of its plan"
    if shelf.layout != fresh.layout:
        yield "its networks have other parameters than those of its plan"
    if (shelf.chunk is not None and shelf.chunk < 1) or shelf.compile not in ("auto", "on", "off"):
        yield "its engine works as none does"
    if any(count < 1 for count, _ in shelf.notes):
        yield "it has notes of nobody"
    if shelf.broken is not None:
        places = [*shelf.broken.places]
        left = [p for part in shelf.broken.left for p in part]
        whole = {*range(len(stack.members))}
        if len({*places}) != len(places) or not {*places} <= whole:
            yield "members are in its epoch that are not there"
        if len({*left}) != len(left) or not {*left} <= {*places} or not all(shelf.broken.left):
            yield "parts of its epoch are left that are not its own"


def _restore_courses(field: Field, plain: Snapshot, unread: dict[str, Tensor]) -> None:
    total, members = sum(way.noted for way in plain.courses), field.plan.folds * len(field.plan.seeds)
    curve = _fitting(unread, "courses.curve", (total,), torch.float64)
    scores = _fitting(unread, "courses.scores", (total, members), torch.float64)
    groups = int(field.stacks[0].inside.groups) - 1
    inside = torch.zeros(total, 0)
    if groups:
        inside = _fitting(unread, "courses.inside", (total, groups), torch.float64)
    if torch.isnan(curve).any() or torch.isnan(inside).any():
        raise ValueError("its curves have gaps")
    first = 0
    for course, way in zip(field.courses, plain.courses, strict=True):
        own = slice(first, first := first + way.noted)
        # one by one into the lists that are there: stacks know the course itself
        course.curve[:] = curve[own].tolist()
        course.scores[:] = [tuple(line) for line in scores[own].tolist()]
        course.inside[:] = [tuple(line) for line in inside[own].tolist()] if groups else []
        course.lost[:], course.ended = sorted(way.lost), way.ended


def _restore_album(field: Field, plain: Snapshot, unread: dict[str, Tensor]) -> None:
    if plain.pictures is None:
        return
    album = field.remember()
    for number, p in enumerate(plain.pictures):
        stack = next((s for s in field.stacks if p.trial in s.courses), None)
        if stack is None or not 0 <= p.epoch <= max(0, stack.courses[p.trial].epoch) or p.step < 0:
            raise ValueError("it has pictures of trials or epochs that are not there")
        state, own = stack.cohort.state, _taken(unread, f"album{number}.")
        parameters = _fitting(own, "parameters", (state.parameters.shape[1],), state.parameters.dtype)
        buffers = {
            name: _fitting(own, f"buffers.{name}", tuple(b.shape[1:]), b.dtype)
            for name, b in state.buffers.items()
        }
        album.add(p.trial, Picture(p.epoch, p.step, parameters, buffers))
    album.thinned_as_before()


def _fitting(unread: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Take a tensor that must be there, of this shape and type."""
    if name not in unread:
        raise ValueError(f"the tensor {name} is missing")
    tensor = unread.pop(name)
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(f"the tensor {name} is {tensor.dtype} {[*tensor.shape]}, not {dtype} {[*shape]}")
    return tensor


def _restore_stack(stack: Stack, shelf: Shelf, unread: dict[str, Tensor]) -> Iterator[str]:
    """Fill a fresh stack, and give what cannot be."""
    for name, ours in _state_tensors(stack).items():
        ours.copy_(_fitting(unread, name, tuple(ours.shape), ours.dtype))
    yield from _clock_problems(stack, shelf)
    stack.notes[:] = _read_notes(stack, shelf, unread)
    if shelf.broken is not None:
        stack.begun = _read_begun(stack, shelf.broken, unread)
    if unread:
        yield f"it has tensors that no such stack has: {sorted(unread)[0]}"


def _clock_problems(stack: Stack, shelf: Shelf) -> Iterator[str]:
    """Compare the members' clocks with those of their trials."""
    cohort, state = stack.cohort, stack.cohort.state
    if state.seed.tolist() != [m.seed for m in stack.members]:
        yield "its seeds are not those of its members"
    if shelf.broken is not None and [*shelf.broken.places] != stack.running:
        yield "its epoch is not that of the members who are running"
    ahead = set() if shelf.broken is None else {*shelf.broken.places}
    ahead -= {p for part in (shelf.broken.left if shelf.broken else ()) for p in part}
    every = zip(state.epoch.tolist(), state.step.tolist(), state.status.tolist(), strict=True)
    for place, (epoch, step, status) in enumerate(every):
        course = stack.courses[stack.members[place].trial]
        done = course.epoch + (place in ahead)
        if not RUNNING <= status <= STOPPED or (status == RUNNING and course.ended):
            yield f"member {place} is neither running nor through"
        if not (0 <= epoch <= done if status == DIVERGED else epoch == done):
            yield f"member {place} is at epoch {epoch}, and its trial at {course.epoch}"
        if step != cohort.pace.total_steps(cohort.lengths[place], epoch):
            yield f"member {place} has taken {step} steps in {epoch} epochs"
        if not 0 <= int(stack.kept.epoch[place]) <= epoch:
            yield f"member {place} keeps an epoch that it has not done"
    running = {stack.members[p].trial for p in stack.running}
    for trial, course in stack.courses.items():
        if not course.ended and trial not in running:
            yield f"trial {trial + 1} goes on without members"
    if not stack.inside.fits(stack.courses):
        yield "what it keeps of its outer folds is not of their best epochs"


def _read_notes(stack: Stack, shelf: Shelf, unread: dict[str, Tensor]) -> list[Notes]:
    total = sum(count for count, _ in shelf.notes)
    others = dict.fromkeys(name for _, names in shelf.notes for name in names)
    heads = {name: f"notes.{name}" for name in ROUND_BY_ROUND} | {n: f"notes.others.{n}" for n in others}
    places = _fitting(unread, "notes.places", (total,), torch.int64).tolist()
    epochs = _fitting(unread, "notes.epoch", (total,), torch.int64).numpy()
    columns = {n: _fitting(unread, head, (total,), torch.float64).numpy() for n, head in heads.items()}
    if any(not 0 <= p < len(stack.members) for p in places):
        raise ValueError("it has notes of members that are not there")
    latest = [stack.courses[m.trial].epoch for m in stack.members]
    if any(not 0 <= e <= latest[p] for p, e in zip(places, epochs.tolist(), strict=True)):
        raise ValueError("it has notes of epochs that were not done")
    notes, first = [], 0
    for count, names in shelf.notes:
        own = slice(first, first := first + count)
        losses = {name: columns[name][own].copy() for name in ROUND_BY_ROUND}
        known = {name: columns[name][own].copy() for name in names}
        notes.append(Notes(places[own], epoch=epochs[own].copy(), others=known, **losses))
    return notes


def _read_begun(stack: Stack, broken: Broken, unread: dict[str, Tensor]) -> Begun:
    cohort, places = stack.cohort, [*broken.places]
    device = cohort.rows.device
    losses = _fitting(unread, "begun.losses", (len(cohort),), torch.float64)
    counted = {
        name: _fitting(unread, f"begun.counted.{name}", tuple(count.shape), count.dtype).to(device)
        for name, count in cohort.counted(places).items()
    }
    return Begun(places, [list(part) for part in broken.left], losses.to(device).clone(), counted)
