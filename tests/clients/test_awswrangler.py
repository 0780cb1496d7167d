"""awswrangler: writes and reads Parquet in the S3 and the Glue catalog that crawlers and jobs use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.clients.environments import python_environment

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES: Final = ("awswrangler==3.17.1",)
PROGRAM: Final = Path(__file__).parent / "programs" / "wrangler.py"


def test_a_crawled_table_is_read_and_a_written_one_is_crawled(run: Callable[..., str]) -> None:
    """Partitions and types that a crawler finds are those that awswrangler wrote, and vice versa."""
    python = python_environment("awswrangler", *PACKAGES) / "python"
    assert run([python, PROGRAM]).splitlines() == ["read 3 2026", "crawled id=bigint name=string year=string"]
