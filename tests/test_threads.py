"""Independent tasks on threads of one process."""

from __future__ import annotations

import threading
import time

import pytest

from zstore.writing.threads import on_threads


def test_results_come_in_the_order_of_the_items_however_long_each_takes() -> None:
    def work(number: int) -> int:
        time.sleep(0.002 * (7 - number % 8))
        return number**2

    assert on_threads(work, range(20), 4, lambda number, result: None) == [number**2 for number in range(20)]


def test_each_result_is_told_once_with_the_number_of_its_item_on_the_calling_thread() -> None:
    told: list[tuple[int, str, threading.Thread]] = []
    on_threads(str.upper, "abc", 2, lambda number, result: told.append((number, result, threading.current_thread())))
    assert sorted((number, result) for number, result, _ in told) == [(0, "A"), (1, "B"), (2, "C")]
    assert {thread for *_, thread in told} == {threading.current_thread()}


def test_no_more_tasks_run_at_once_than_there_are_threads() -> None:
    lock, running, most = threading.Lock(), 0, 0

    def work(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    on_threads(work, range(12), 3, lambda number, result: None)
    assert most == 3


def test_after_an_error_no_task_runs_or_starts_any_more() -> None:
    started: list[int] = []
    ended: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        if number == 1:
            raise ValueError("one")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match="one"):
        on_threads(work, range(100), 2, lambda number, result: None)
    n_started = len(started)
    assert sorted(ended) == sorted(set(started) - {1})
    time.sleep(0.1)
    assert len(started) == n_started < 10


def test_what_is_raised_when_a_result_is_told_ends_the_tasks_too() -> None:
    started: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        time.sleep(0.01)

    def refuse(number: int, result: None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_threads(work, range(100), 2, refuse)
    assert len(started) < 10
