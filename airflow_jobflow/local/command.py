"""A command for a local process: its program, its PATH, and the errors if it cannot be started."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Command:
    """A command to run.

    :param argv: program and arguments.
    :param environment: variables in addition to the minimal ones of the server. Default: none.
    """

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exit:
    """How a process ended.

    :param code: the exit code; None if it could not be started.
    :param error: why it could not be started. Default: it was started.
    """

    code: int | None
    error: str | None = None


def resolved(argv: Sequence[str], path: str) -> list[str]:
    """Return ``argv`` with its program looked up in the PATH of the process, not of the server.

    :param argv: program and arguments.
    :param path: the PATH of the process.
    :raises ValueError: ``argv`` is empty.
    :raises FileNotFoundError: the program does not exist.
    """
    if not argv:
        raise ValueError("no command specified")
    program = shutil.which(argv[0], path=path) if os.sep not in argv[0] else argv[0]
    if program is None:
        raise FileNotFoundError(argv[0])
    return [program, *argv[1:]]


def why_not_started(argv: Sequence[str], error: Exception) -> str:
    """Return the error message of a container runtime for a command that cannot be started.

    :param argv: program and arguments.
    :param error: the exception that starting it raised.
    """
    if not argv:
        return "no command specified"
    if isinstance(error, PermissionError):
        return f'exec: "{argv[0]}": permission denied'
    if isinstance(error, FileNotFoundError) and os.sep in argv[0]:
        return f'exec: "{argv[0]}": stat {argv[0]}: no such file or directory'
    if isinstance(error, FileNotFoundError):
        return f'exec: "{argv[0]}": executable file not found in $PATH'
    return f'exec: "{argv[0]}": {error}'


def search_path(home: Path) -> str:
    """Return a PATH in which ``python`` and ``python3`` are this interpreter.

    :param home: a folder in which scripts that start it can be created.
    """
    interpreter = Path(sys.executable)
    directories = [str(interpreter.parent), "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    missing = [name for name in ("python", "python3") if not (interpreter.parent / name).exists()]
    if missing:
        wrappers = home / "bin"
        wrappers.mkdir()
        for name in missing:
            script = wrappers / name
            script.write_text(f'#!/bin/sh\nexec "{interpreter}" "$@"\n', encoding="utf-8")
            script.chmod(0o755)
        directories.insert(0, str(wrappers))
    return os.pathsep.join(directories)
