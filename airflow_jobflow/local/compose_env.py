"""``make compose-env``: write the secrets for docker-compose.yaml to a file ``.env`` beside it.

Invariants: an existing file is never changed, because the database has been created with its password. The file is
created with permissions for its owner only. The script needs only the standard library.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).resolve().parents[2] / ".env"

SECRETS: Final[Mapping[str, Callable[[], str]]] = {
    "AIRFLOW_FERNET_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "AIRFLOW_JWT_SECRET": lambda: secrets.token_hex(64),  # HS512 needs 64 bytes
    "AIRFLOW_API_SECRET_KEY": lambda: secrets.token_hex(32),
    "POSTGRES_PASSWORD": lambda: secrets.token_hex(24),  # part of URLs
}
"""The function that generates each secret."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file, or report what is missing in an existing one.

    :param arguments: the command line: the path of the file. Default: this process's.
    :return: the exit code: 1 if an existing file lacks a secret, else 0.
    """
    given = sys.argv[1:] if arguments is None else arguments
    file = Path(given[0]) if given else FILE
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        missing = _missing(file.read_text(encoding="utf-8"))
        for name in missing:
            sys.stderr.write(
                f"{file} exists and is not changed, but it does not set {name}. Add it, or move the file away.\n"
            )
        if not missing:
            sys.stdout.write(f"{file} exists and is not changed.\n")
        return 1 if missing else 0
    with os.fdopen(descriptor, "w", encoding="utf-8") as lines:
        lines.writelines(f"{name}={make()}\n" for name, make in SECRETS.items())
    sys.stdout.write(f"Wrote {file}.\n")
    return 0


def _missing(text: str) -> list[str]:
    """Return the names of secrets that a file does not set."""
    lines = (line.removeprefix("export ").partition("=") for line in text.splitlines())
    present = {name.strip() for name, _, value in lines if value.strip(" \"'")}
    return [name for name in SECRETS if name not in present]


if __name__ == "__main__":
    sys.exit(main())
