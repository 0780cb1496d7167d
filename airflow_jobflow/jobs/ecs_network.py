"""The network of an ECS task in the network mode ``awsvpc``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

MEMBERS: Final = {"subnets": "subnets", "security_groups": "securityGroups", "assign_public_ip": "assignPublicIp"}
"""The member of ``awsvpcConfiguration`` for each of our parameters."""

PUBLIC_IP: Final = {True: "ENABLED", False: "DISABLED"}


def awsvpc(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``awsvpcConfiguration`` that parameters set; empty if they set nothing of it.

    :param values: validated values by our names.
    """
    given = {name: values[name] for name in MEMBERS if values.get(name) is not None}
    if "assign_public_ip" in given:
        given["assign_public_ip"] = PUBLIC_IP[given["assign_public_ip"]]
    return {MEMBERS[name]: value for name, value in given.items()}
