"""Runs the ``async def`` tests of this folder on a scripted clock."""

from __future__ import annotations

import inspect

import pytest

from tests.unit.polling.scripted import Service, run


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on a scripted clock."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture
def service() -> Service:
    """A service that knows no jobs yet and answers at once."""
    return Service()
