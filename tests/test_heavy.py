import threading

import pytest

import heavy


@pytest.fixture
def fresh(settings):
    """Let the next heavy work find its threads anew, by the settings of the test."""
    heavy._workers.cache_clear()
    yield settings
    heavy._workers()[0].shutdown()
    heavy._workers.cache_clear()


def test_heavy_work_returns_what_the_function_does(fresh):
    assert heavy.run(divmod, 7, 2) == (3, 1)


def test_what_heavy_work_raises_is_raised(fresh):
    with pytest.raises(ZeroDivisionError):
        heavy.run(divmod, 7, 0)


def test_a_quarter_of_the_threads_never_waits_for_heavy_work(fresh):
    fresh.WEB_THREADS = 4
    begun, ended = threading.Semaphore(0), threading.Event()
    waiting = [
        threading.Thread(target=heavy.run, args=(lambda: (begun.release(), ended.wait()),))
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    begun.acquire()
    slots = heavy._workers()[1]
    while slots.acquire(blocking=False):  # until all three hold theirs
        slots.release()

    with pytest.raises(heavy.Busy):
        heavy.run(divmod, 7, 2)

    ended.set()
    for thread in waiting:
        thread.join()
    assert heavy.run(divmod, 7, 2) == (3, 1)


def test_heavy_work_is_refused_while_the_process_ends(fresh):
    heavy._workers()[0].shutdown()

    with pytest.raises(heavy.Busy):
        heavy.run(divmod, 7, 2)
