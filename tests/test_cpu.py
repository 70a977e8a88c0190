import threading

import pytest

import cpu


@pytest.fixture
def fresh(settings):
    """Let the next heavy work find its threads anew, by the settings of the test."""
    cpu._workers.cache_clear()
    yield settings
    cpu._workers()[0].shutdown()
    cpu._workers.cache_clear()


def test_heavy_work_gives_back_what_the_function_does(fresh):
    assert cpu.run(divmod, 7, 2) == (3, 1)


def test_what_heavy_work_raises_is_raised(fresh):
    with pytest.raises(ZeroDivisionError):
        cpu.run(divmod, 7, 0)


def test_a_quarter_of_the_threads_never_waits_for_heavy_work(fresh):
    fresh.WEB_THREADS = 4
    begun, ended = threading.Semaphore(0), threading.Event()
    waiting = [threading.Thread(target=cpu.run, args=(lambda: (begun.release(), ended.wait()),)) for _ in range(3)]
    for thread in waiting:
        thread.start()
    begun.acquire()
    places = cpu._workers()[1]
    while places.acquire(blocking=False):  # until all three hold theirs
        places.release()

    with pytest.raises(cpu.Busy):
        cpu.run(divmod, 7, 2)

    ended.set()
    for thread in waiting:
        thread.join()
    assert cpu.run(divmod, 7, 2) == (3, 1)


def test_heavy_work_is_refused_while_the_process_ends(fresh):
    cpu._workers()[0].shutdown()

    with pytest.raises(cpu.Busy):
        cpu.run(divmod, 7, 2)
