"""The task sizes of Fargate. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

SIZES: Final[Mapping[int, frozenset[int]]] = {
    256: frozenset({512, 1024, 2048}),
    512: frozenset(range(1024, 4096 + 1, 1024)),
    1024: frozenset(range(2048, 8192 + 1, 1024)),
    2048: frozenset(range(4096, 16384 + 1, 1024)),
    4096: frozenset(range(8192, 30720 + 1, 1024)),
    8192: frozenset(range(16384, 61440 + 1, 4096)),
    16384: frozenset(range(32768, 122880 + 1, 8192)),
    32768: frozenset({61440, 122880, 249856}),
}
"""The possible MiB for each number of CPU units (1024 are one vCPU), as listed in botocore's model of Batch."""

CPU: Final = re.compile(r"(?:(?P<units>\d+)|(?P<large>[\d.]+) ?vcpu)", re.IGNORECASE)
MEMORY: Final = re.compile(r"(?:(?P<units>\d+)|(?P<large>[\d.]+) ?gb)", re.IGNORECASE)


def is_size(cpu: str, memory: str) -> bool:
    """Return whether Fargate has a size in the notation of ECS.

    :param cpu: CPU units, such as ``1024``, or vCPUs, such as ``1 vCPU``.
    :param memory: MiB, such as ``2048``, or GiB, such as ``2 GB``.
    """
    return units(MEMORY, memory) in SIZES.get(units(CPU, cpu), ())


def is_batch_size(vcpus: str, memory: str) -> bool:
    """Return whether Fargate has a size in the notation of Batch.

    :param vcpus: vCPUs, such as ``0.25``.
    :param memory: MiB, such as ``2048``.
    """
    return is_size(f"{vcpus} vCPU", memory)


def nearest(cpu: float, memory: int) -> tuple[int, int]:
    """Return the smallest size, as CPU units and MiB, that has at least so much of both; the largest if none has.

    :param cpu: CPU units.
    :param memory: MiB.
    """
    sizes = sorted((units, mib) for units, of_cpu in SIZES.items() for mib in of_cpu)
    return next((size for size in sizes if size[0] >= cpu and size[1] >= memory), sizes[-1])


def units(pattern: re.Pattern[str], size: str) -> int:
    """Return a size in CPU units or MiB; -1 if it is invalid.

    :param pattern: ``CPU`` or ``MEMORY``.
    :param size: the size, in the notation of ECS.
    """
    found = pattern.fullmatch(size.strip())
    if found is None:
        return -1
    try:
        exact = float(found["units"] or 1024 * float(found["large"]))
        return int(exact) if exact.is_integer() else -1
    except (ValueError, OverflowError):
        return -1
