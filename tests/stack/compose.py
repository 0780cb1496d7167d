"""Parse docker-compose.yaml with an overlay like Compose, and find what Compose would reject. Pure functions.

It supports the parts of the format that the file uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from airflow_jobflow.local.call import texts

ROOT: Final = Path(__file__).resolve().parents[2]
FILE: Final = ROOT / "docker-compose.yaml"
OVERLAY: Final = Path(__file__).with_name("overlay.yaml")

VARIABLE: Final = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<how>:[-?])(?P<word>[^}]*))?\})")
"""The supported interpolation: ``$$``, ``${NAME}``, ``${NAME:-default}``, ``${NAME:?message}``."""

CONDITIONS: Final = ("service_started", "service_healthy", "service_completed_successfully")


class InvalidFileError(Exception):
    """Compose would reject the file; the message says why."""


@dataclass(frozen=True)
class Service:
    """A service, with the data to run it as a process."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    after: Mapping[str, str]
    """The services that it depends on, with their conditions."""
    health: Sequence[str]
    """The healthcheck command; none if there is none."""
    port: str | None
    """The port it listens on."""
    mounts: Mapping[str, str]
    """The mounts: a named volume, or a path relative to the file, by the path in the container."""
    restarts: bool
    """Whether it is restarted when it ends by itself."""


def read(file: Path) -> dict[str, Any]:
    """Parse a file without interpolation."""
    document: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


def services(
    document: Mapping[str, Any], overlay: Mapping[str, Any], variables: Mapping[str, str]
) -> dict[str, Service]:
    """Return the interpolated services in an order in which they can be started.

    :raises InvalidFileError: the file is invalid, or a required variable is not set.
    """
    if wrong := problems(document):
        raise InvalidFileError("; ".join(wrong))
    merged = merge(document["services"], overlay["services"])
    found = {name: _service(name, interpolate(entry, variables)) for name, entry in merged.items()}
    return {name: found[name] for name in _in_order({name: each.after for name, each in found.items()})}


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one mapping into another, like Compose does with a second file, as far as it is used here."""
    result = dict(below)
    for key, value in above.items():
        there = result.get(key)
        result[key] = merge(there, value) if isinstance(there, Mapping) and isinstance(value, Mapping) else value
    return result


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Replace variables everywhere in a value.

    :raises InvalidFileError: a required variable is not set.
    """
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: _value(found, variables), value)
    if isinstance(value, Mapping):
        return {key: interpolate(each, variables) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolate(each, variables) for each in value]
    return value


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    if found["dollar"]:
        return "$"
    value = variables.get(found["name"], "")
    if value or found["how"] is None:
        return value
    if found["how"] == ":?":
        raise InvalidFileError(f"{found['name']} {found['word']}")
    return found["word"]


def required(document: Any) -> set[str]:
    """Return the variables that must be set."""
    return {found["name"] for text in texts(document) for found in VARIABLE.finditer(text) if found["how"] == ":?"}


def problems(document: Mapping[str, Any]) -> list[str]:
    """Return what Compose would reject although the schema accepts it: undefined names and cycles."""
    entries = document["services"]
    wrong = [*_wrong_names(document), *_wrong_dependencies(entries)]
    wrong += [f"service {name} has neither an image nor a build" for name in entries if not _has_image(entries[name])]
    if not wrong:
        try:
            list(_in_order({name: _after(entry) for name, entry in entries.items()}))
        except InvalidFileError as circle:
            wrong.append(str(circle))
    return wrong


def _wrong_names(document: Mapping[str, Any]) -> Iterator[str]:
    for kind in ("volumes", "networks", "secrets", "configs"):
        defined, used = set(document.get(kind) or {}), set[str]()
        for name, entry in document["services"].items():
            names = set(_used(kind, entry))
            used |= names
            yield from (f"service {name} refers to undefined {kind[:-1]} {each}" for each in sorted(names - defined))
        yield from (f"{kind[:-1]} {each} is used by no service" for each in sorted(defined - used))


def _wrong_dependencies(entries: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in entries.items():
        for other, how in _after(entry).items():
            if other not in entries:
                yield f"service {name} depends on undefined service {other}"
            elif how not in CONDITIONS:
                yield f"service {name} waits for {other} to be {how}, which is no condition"
            elif how == "service_healthy" and "healthcheck" not in entries[other]:
                yield f"service {name} waits for {other} to be healthy, which has no healthcheck"


def _has_image(entry: Mapping[str, Any]) -> bool:
    return "image" in entry or "build" in entry


def _used(kind: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Return the names of the top-level elements of a kind that a service uses."""
    for each in entry.get(kind) or ():
        if isinstance(each, Mapping):
            if each.get("type", "volume") == "volume" and each.get("source"):
                yield each["source"]
            continue
        source, colon, _ = str(each).partition(":")
        if kind != "volumes" or (colon and not source.startswith((".", "/", "~"))):
            yield source


def _after(entry: Mapping[str, Any]) -> dict[str, str]:
    given = entry.get("depends_on") or {}
    if isinstance(given, list):
        return dict.fromkeys(given, "service_started")
    return {name: each["condition"] for name, each in given.items()}


def _in_order(after: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Return names in an order in which each follows those it depends on.

    :raises InvalidFileError: there is a cycle.
    """
    left = dict(after)
    while left:
        free = [name for name, others in left.items() if not set(others) & set(left)]
        if not free:
            raise InvalidFileError(f"services wait for each other: {', '.join(sorted(left))}")
        for name in free:
            yield name
            del left[name]


def _service(name: str, entry: Mapping[str, Any]) -> Service:
    test = (entry.get("healthcheck") or {}).get("test") or []
    health = {"CMD": test[1:], "CMD-SHELL": ["sh", "-c", *test[1:]]}[test[0]] if test else []
    mounts = (each.split(":") for each in entry.get("volumes") or ())
    return Service(
        name=name,
        command=entry["command"],
        environment={key: str(value) for key, value in (entry.get("environment") or {}).items()},
        after=_after(entry),
        health=health,
        port=next(iter(entry.get("expose") or ()), None),
        mounts={each[1]: each[0] for each in mounts},
        restarts=entry.get("restart") == "unless-stopped",
    )
