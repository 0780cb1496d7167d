"""When what waits hold is kept out of the garbage collector's full rounds."""

from __future__ import annotations

from contextlib import ExitStack

from airflow_jobflow.triggers.collector import STEP, Spared


def test_what_is_spared_grows_only_when_there_are_more_waits_than_ever() -> None:
    """However often waits end and others begin: else garbage in cycles would pile up for ever."""
    frozen: list[int] = []
    waits: list[ExitStack] = []
    spared = Spared(lambda: frozen.append(len(waits) + 1))

    def begin(count: int) -> None:
        for _ in range(count):
            wait = ExitStack()
            wait.enter_context(spared.wait())
            waits.append(wait)

    def end(count: int) -> None:
        for _ in range(count):
            waits.pop().close()

    begin(STEP - 1)
    assert frozen == []
    begin(STEP + 1)
    assert frozen == [STEP, 2 * STEP]
    for _ in range(5):
        end(STEP)
        begin(STEP)
    assert frozen == [STEP, 2 * STEP]
    end(2 * STEP)
    begin(3 * STEP)
    assert frozen == [STEP, 2 * STEP, 3 * STEP]
