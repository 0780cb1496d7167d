"""The services of docker-compose.yaml as processes on this machine, isolated like containers.

Invariants:

- Commands, environment, dependencies and healthchecks are those of the file. The differences: ``<service>:<port>`` is a
  free port on loopback, a listener's address is loopback, and a mounted path is a directory of the stack.
- A process only gets the PATH of this machine's environment, and the package of this checkout.
- All processes that a service started, in any session, carry its mark, so that they can be ended together. Nothing
  outlives the stack.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

import psutil  # type: ignore[import-untyped]  # it comes with Airflow, its stubs do not

from airflow_jobflow.local.compose_env import SECRETS
from airflow_jobflow.local.demo.home import free_port
from airflow_jobflow.local.watchdog import MARK as JOB_MARK
from tests.stack import compose
from tests.stack.errors import PATIENCE, StackError, eventually
from tests.stack.gate import Gate
from tests.stack.instance import MARK, Instance
from tests.stack.programs import BINARIES, POSTGRES, create_cluster, program

SCALE: Final = {"worker": 2, "triggerer": 2}
USER: Final = {
    "AIRFLOW_WORKER_CONCURRENCY": "4",
    "JOBFLOW_LOCAL_SLOTS": "12",
}
"""Values that a user may set in ``.env`` in addition to the secrets."""

GATED: Final = "aws"
"""The service behind a gate, so that it can become unreachable."""


RESTARTED_AFTER: Final = 0.5
"""Seconds."""


class Stack:
    """The whole stack: a context manager.

    :param directory: the directory of all of its files.
    """

    def __init__(self, directory: Path, scale: Mapping[str, int] = SCALE, dags: Sequence[Path] = ()) -> None:
        directory.chmod(0o711)  # Postgres runs as another user
        self.directory = directory
        document, overlay = compose.read(compose.FILE), compose.read(compose.OVERLAY)
        for name in ("postgres", "pg_isready", "initdb", "redis-server", "redis-cli"):
            program(name)
        exposing = compose.services(document, overlay, dict.fromkeys(compose.required(document), "?")).values()
        self.ports = {each.name: str(free_port()) for each in exposing if each.port}
        variables = {
            **USER,
            **{name: make() for name, make in SECRETS.items()},
            "AIRFLOW_PORT": self.ports["api-server"],
            "JOBFLOW_CONSOLE_PORT": self.ports["aws-console"],
        }
        self.services = compose.services(document, overlay, variables)
        self.gate = Gate(free_port(), int(self.ports[GATED]))
        self._addresses = {
            f"{each.name}:{each.port}": f"127.0.0.1:{self.gate.port if each.name == GATED else self.ports[each.name]}"
            for each in self.services.values()
            if each.port
        }
        self._volumes = self._mounted(dags)
        self._whole = False
        """Whether no instance was changed since all were healthy."""
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep)
        self.instances = {
            instance.name: instance
            for service in self.services.values()
            for number in range(1, scale.get(service.name, 1) + 1)
            for instance in [self._instance(service, number)]
        }

    @property
    def url(self) -> str:
        """The URL of Airflow."""
        return f"http://127.0.0.1:{self.ports['api-server']}"

    @property
    def aws_url(self) -> str:
        """The URL of the local AWS without the gate, which no service of the stack uses."""
        return f"http://127.0.0.1:{self.ports[GATED]}"

    def __enter__(self) -> Self:
        try:
            self.gate.open()
            postgres = self.instance(POSTGRES)
            create_cluster(postgres.environment, postgres.directory)
            for service in self.services.values():
                for instance in self.of(service.name):
                    self._await(instance)
                    instance.start()
            self.await_healthy()
        except BaseException:
            self.close()
            raise
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all services."""
        self._closing.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self.gate.close()
        self.unpause(GATED)
        self.stop(GATED)  # it ends its jobs
        for instance in reversed(self.instances.values()):
            instance.unpause()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the others must end too
                instance.kill()

    def of(self, service: str) -> list[Instance]:
        """Return the instances of a service."""
        return [each for each in self.instances.values() if each.service.name == service]

    def instance(self, service: str, number: int = 1) -> Instance:
        """Return an instance, counted from 1."""
        return self.instances[f"{service}-{number}"]

    def start(self, service: str, number: int = 1) -> None:
        """Start an instance unless it runs; it may not be healthy yet."""
        self.instance(service, number).start()

    def kill(self, service: str, number: int = 1) -> None:
        """Send SIGKILL to all processes of an instance, like ``docker kill``."""
        self._whole = False
        self.instance(service, number).kill()

    def stop(self, service: str, number: int = 1) -> None:
        """Send SIGTERM to the first process of an instance, and SIGKILL to the rest, like ``docker stop``."""
        self._whole = False
        self.instance(service, number).stop()

    def pause(self, service: str, number: int = 1) -> None:
        """Send SIGSTOP to all processes of an instance, like ``docker pause``."""
        self._whole = False
        self.instance(service, number).pause()

    def unpause(self, service: str, number: int = 1) -> None:
        """Send SIGCONT to all processes of an instance."""
        self.instance(service, number).unpause()

    def recover(self, service: str, number: int = 1) -> None:
        """Start an instance if it does not run, like Docker, and unpause it."""
        instance = self.instance(service, number)
        if instance.recover():
            self._whole = False
        else:
            instance.unpause()

    def revive(self) -> None:
        """Start and unpause all instances; they may not be healthy yet."""
        self.gate.open()
        for service in self.services:
            for number, _ in enumerate(self.of(service), start=1):
                if service != "init":
                    self.recover(service, number)

    def repair(self) -> None:
        """Start and unpause all instances, and wait until those that were changed are healthy."""
        deadline = time.monotonic() + PATIENCE
        self.revive()
        while not self._whole:
            try:
                self.await_healthy()
            except StackError:  # one has ended meanwhile because another was missing
                if time.monotonic() > deadline:
                    raise
                self.revive()

    def await_healthy(self) -> None:
        """Wait until all healthchecks succeed.

        :raises StackError: one does not.
        """
        checked = [instance for instance in self.instances.values() if instance.service.health]
        with ThreadPoolExecutor(len(checked)) as checks:
            list(checks.map(lambda instance: self._await_one(instance, instance.is_healthy, "healthy"), checked))
        self._whole = True

    def jobs_running(self) -> list[psutil.Process]:
        """Return the processes of the local AWS's jobs."""
        aws = self.instance(GATED).process
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(aws.pid).children(recursive=True) if aws else ():
                with contextlib.suppress(psutil.Error):
                    if process.environ().get(JOB_MARK):
                        found.append(process)
        return found

    def tails(self) -> str:
        """Return the last lines of every service's log."""
        return "\n".join(each.tail() for each in self.instances.values())

    def _keep(self) -> None:
        """Restart instances that have ended by themselves, like Docker: Airflow's services do so if the database is
        down.
        """
        while not self._closing.wait(RESTARTED_AFTER):
            for instance in self.instances.values():
                if instance.service.restarts and instance.recover(unasked=True):
                    self._whole = False

    def _await(self, instance: Instance) -> None:
        """Wait for the dependencies of an instance."""
        for name, how in instance.service.after.items():
            for other in self.of(name):
                process = other.process
                assert process
                if how == "service_completed_successfully":
                    self._await_one(other, lambda one=process: one.poll() == 0, "completed")  # type: ignore[misc]
                elif how == "service_healthy":
                    self._await_one(other, other.is_healthy, "healthy")

    def _await_one(self, instance: Instance, look: Callable[[], bool], what: str) -> None:
        def seen() -> bool:
            if look():
                return True
            if instance.process and instance.process.poll() not in (None, 0):
                raise StackError(f"{instance.name} has ended\n{instance.tail()}")
            return False

        try:
            eventually(seen, f"{instance.name} {what}")
        except StackError as error:
            raise StackError(f"{error}\n{self.tails()}") from None

    def _instance(self, service: compose.Service, number: int) -> Instance:
        name = f"{service.name}-{number}"
        directory = self.directory / name
        home = directory / "home"
        environment = {
            **{key: self._here(value, service, directory) for key, value in service.environment.items()},
            "HOME": str(home),
            "HOSTNAME": name,
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join(BINARIES),
            "PYTHONPATH": str(compose.ROOT),  # the package under test, whichever is installed
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(home),
            "SPT_NOENV": "1",  # a process that sets its title keeps its environment readable, for the mark
            "no_proxy": "127.0.0.1,localhost",
            MARK: str(directory),
        }
        directory.mkdir(mode=0o711)
        home.mkdir()
        command = [self._here(each, service, directory) for each in service.command]
        health = [self._here(each, service, directory) for each in service.health]
        return Instance(name, service, command, health, environment, directory)

    def _mounted(self, dags: Sequence[Path]) -> dict[str, str]:
        """Return the directories for the mounts of the file: volumes and the DAGs."""
        named = {source for each in self.services.values() for source in each.mounts.values()}
        paths = {name: self.directory / "volumes" / name.strip("./") for name in named}
        for path in paths.values():
            path.mkdir(mode=0o711, parents=True)
        shipped = paths["./dags"]
        for number, folder in enumerate([compose.ROOT / "dags", *dags]):
            (shipped / f"{number}-{folder.parent.name}").symlink_to(folder)
        return {name: str(path) for name, path in paths.items()}

    def _here(self, text: str, service: compose.Service, directory: Path) -> str:
        """Return a text of the file with the addresses and paths of this machine."""
        for address, local in self._addresses.items():
            text = re.sub(rf"(?<![\w-]){re.escape(address)}(?!\d)", local, text)
        if text == service.port:
            return self.ports[service.name]
        if text == "0.0.0.0":
            return "127.0.0.1"
        for path, source in service.mounts.items():
            text = re.sub(rf"^{re.escape(path)}(?=/|$)", self._volumes[source], text)
        return re.sub(r"^/opt/airflow(?=/|$)", str(directory), text)
