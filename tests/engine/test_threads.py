"""Studies in several threads of one process, and the number of threads that torch has after them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

import studies
from foldwise.engine.interface import Engine
from foldwise.engine.threads import available, held_to_one, hold_worker
from foldwise.job import Job

NUMBER = 3


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(NUMBER)
    yield
    torch.set_num_threads(before)


def in_new_thread(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def overlapping(hold: Callable[[], AbstractContextManager[None]], first_leaves_first: bool) -> list[int]:
    """Let two threads hold torch, the second after the first; give the numbers in both of them when both have left."""
    entered, may_leave = [threading.Event() for _ in "ab"], [threading.Event() for _ in "ab"]

    def work(who: int) -> int:
        with hold():
            entered[who].set()
            assert may_leave[who].wait(30)
        return torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        found = []
        for who in (0, 1):
            found.append(pool.submit(work, who))
            assert entered[who].wait(30)
        for who in (0, 1) if first_leaves_first else (1, 0):
            may_leave[who].set()
            found[who].result()
        return [f.result() for f in found]


def resident() -> Engine:
    return made("resident").stacks[0].engine


def made(engine: str) -> Job:
    chunk, device = (2, studies.DEVICE) if engine == "stacked" else (None, torch.device("cpu"))
    job = studies.job(studies.table("binary"), "binary", chunk=chunk, device=device)
    job.engine = engine
    return job


@pytest.mark.parametrize("first_leaves_first", [True, False])
def test_engines_that_work_at_once_leave_the_number_as_it_was(first_leaves_first: bool) -> None:
    engine = resident()
    assert overlapping(engine.at_work, first_leaves_first) == [NUMBER, NUMBER]
    assert in_new_thread(torch.get_num_threads) == NUMBER == torch.get_num_threads()


def test_an_engine_made_while_another_works_has_all_threads() -> None:
    with resident().at_work():
        assert in_new_thread(lambda: resident().workers) == NUMBER
        assert in_new_thread(available) == NUMBER


def test_holders_nest() -> None:
    with held_to_one():
        with held_to_one():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == NUMBER


def test_a_holder_leaves_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), held_to_one():
        1 / 0  # noqa: B018
    assert torch.get_num_threads() == NUMBER == available()


def test_a_thread_keeps_a_number_of_its_own() -> None:
    def work() -> int:
        torch.set_num_threads(2)
        with held_to_one():
            pass
        return torch.get_num_threads()

    with held_to_one():
        assert in_new_thread(work) == 2


def test_a_worker_is_held_and_nobody_else() -> None:
    with ThreadPoolExecutor(1, initializer=hold_worker) as pool:
        assert pool.submit(lambda: torch.ones(100_000).sum() and torch.get_num_threads()).result() == 1
        assert in_new_thread(torch.get_num_threads) == NUMBER == torch.get_num_threads()


@pytest.mark.parametrize("engine", ["resident", "stacked"])
def test_two_studies_in_two_threads_are_each_as_alone(engine: str) -> None:
    def losses(_: int = 0) -> list[float]:
        job = made(engine)
        job.train(studies.quiet)
        return [course.best for course in job.field.courses]

    alone = losses()
    # they ask at once: whoever asks torch for the first time just while a worker begins is told one
    with ThreadPoolExecutor(2, initializer=torch.get_num_threads) as pool:
        assert list(pool.map(losses, range(2))) == [alone, alone]
    assert in_new_thread(torch.get_num_threads) == NUMBER
