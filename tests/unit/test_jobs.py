"""JobThread: one job at a time, the next behind a cancelled one, ids, and the end."""

import threading

import pytest
from runner_rig import wait_for

from tomostream_ioc.model.jobs import JobThread


class Worker:
    """Does each job until it is cancelled, or let go."""

    def __init__(self):
        self.wake = threading.Event()
        self.go_on = threading.Event()
        self.log = []
        self.when_ended = lambda run_id: None
        self.jobs = JobThread[str]("work", self.wake, self.pause, self.work, self.ended)

    def pause(self):
        self.wake.wait(0.05)
        self.wake.clear()

    def work(self, job):
        self.log.append((job.run_id, job.request))
        while not job.cancelled and not self.go_on.wait(0.005):
            pass

    def ended(self, run_id):
        self.log.append(run_id)
        self.when_ended(run_id)


@pytest.fixture
def worker():
    worker = Worker()
    worker.jobs.start()
    yield worker
    worker.jobs.close()
    assert worker.jobs.join(2.0)


def test_a_second_request_joins_the_job_that_goes_on(worker):
    assert worker.jobs.last_id == 0
    assert not worker.jobs.busy
    assert worker.jobs.ask("one") == 1
    assert worker.jobs.ask("two") == 1  # waits still, or goes on
    wait_for(lambda: worker.log == [(1, "one")])
    assert worker.jobs.ask("three") == 1
    assert worker.jobs.busy
    worker.go_on.set()
    wait_for(lambda: worker.log == [(1, "one"), 1])
    assert not worker.jobs.busy
    assert worker.jobs.ask("four") == 2
    wait_for(lambda: worker.log == [(1, "one"), 1, (2, "four"), 2])
    assert worker.jobs.last_id == 2


def test_behind_a_cancelled_job_the_next_may_wait(worker):
    worker.jobs.ask("one")
    wait_for(lambda: worker.log)
    worker.jobs.cancel()
    assert worker.jobs.ask("two") == 2
    assert worker.jobs.ask("three") == 2
    wait_for(lambda: worker.log == [(1, "one"), 1, (2, "two")])


def test_a_job_that_is_cancelled_while_it_waits_is_told_of(worker):
    reached, let_go = threading.Event(), threading.Event()

    def slow(job):
        worker.log.append(job.run_id)
        reached.set()
        let_go.wait(5)

    worker.jobs._work = slow
    worker.jobs.ask("one")
    assert reached.wait(2)
    worker.jobs.cancel()
    worker.jobs.ask("two")
    worker.jobs.cancel()
    let_go.set()
    wait_for(lambda: worker.log == [1, 1, 2, 2])


def test_who_hears_of_the_end_may_ask_for_the_next(worker):
    asked = []
    worker.when_ended = lambda run_id: asked.append(worker.jobs.ask("next")) if not asked else None
    worker.go_on.set()
    worker.jobs.ask("one")
    wait_for(lambda: worker.log == [(1, "one"), 1, (2, "next"), 2])
    assert asked == [2]


def test_after_close_nothing_begins(worker):
    worker.jobs.ask("one")
    wait_for(lambda: worker.log)
    worker.jobs.close()
    assert worker.jobs.join(2.0)
    assert worker.log == [(1, "one"), 1]
    worker.jobs.ask("two")
    threading.Event().wait(0.2)
    assert worker.log == [(1, "one"), 1]


def test_a_job_that_does_not_end_is_said():
    worker = Worker()
    let_go = threading.Event()

    def stubborn(job):
        let_go.wait(5)

    worker.jobs._work = stubborn
    assert worker.jobs.join(0.0)  # never started
    worker.jobs.start()
    worker.jobs.ask("one")
    wait_for(lambda: worker.jobs.busy)
    threading.Event().wait(0.1)
    worker.jobs.close()
    assert not worker.jobs.join(0.05)
    let_go.set()
    assert worker.jobs.join(2.0)


def test_any_thread_may_ask_and_cancel(worker):
    """Ids grow; one that was cancelled before it began may have given way to a later one."""
    worker.go_on.set()
    given, lock = set(), threading.Lock()

    def ask():
        for _ in range(200):
            run_id = worker.jobs.ask("")
            with lock:
                given.add(run_id)
            worker.jobs.cancel()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    wait_for(lambda: not worker.jobs.busy)
    wait_for(lambda: worker.log[-1] == worker.jobs.last_id)
    assert given == set(range(1, worker.jobs.last_id + 1))
    ended = worker.log[1::2]
    assert worker.log[::2] == [(run_id, "") for run_id in ended]
    assert ended == sorted(set(ended))
    assert set(ended) <= given
