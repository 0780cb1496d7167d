"""All that the local Glue asks of moto's insides: objects in S3, crawlers, jobs, and the Data Catalog.

moto is pinned, and a test guards what is used here.

What always holds: what is read is a copy; changes of the catalog are made by the methods that moto's own calls use.
"""

from __future__ import annotations

import contextlib
import copy
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from moto.glue.exceptions import DatabaseAlreadyExistsException, EntityNotFoundException
from moto.glue.models import FakeCrawler, FakeJob, GlueBackend, glue_backends
from moto.s3.exceptions import AccessDeniedByLock, MissingBucket
from moto.s3.models import S3Backend, s3_backends

from airflow_jobflow.local.errors import AwsError

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]

LOWER_AFTER_UPPER: Final = re.compile(r"(?<!^)(?=[A-Z])")


class BucketUnusable(Exception):
    """A bucket that does not exist, or is another account's; says so as S3 does."""


class Store:
    """What moto keeps of one account and region."""

    def __init__(self, account: str, region: str) -> None:
        self._account = account
        self._region = region

    @property
    def _glue(self) -> GlueBackend:
        return glue_backends[self._account][self._region]

    @property
    def _s3(self) -> S3Backend:
        return s3_backends[self._account]["aws"]

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Keys of the objects under a prefix, sorted.

        :raises BucketUnusable: there is no such bucket for this account.
        """
        try:
            found, _, _, _ = self._s3.list_objects(self._s3.get_bucket(bucket), prefix, None, None, None)
        except MissingBucket as error:
            raise BucketUnusable(_of_s3(404, "NoSuchBucket", error.message)) from None
        except AccessDeniedByLock as error:
            raise BucketUnusable(_of_s3(403, "AccessDenied", error.message)) from None
        return sorted(each.name for each in found)

    def read(self, bucket: str, key: str) -> bytes | None:
        """An object's content; None if there is no such object that this account may read."""
        try:
            found = self._s3.get_object(bucket, key)
        except (MissingBucket, AccessDeniedByLock):
            return None
        return None if found is None else found.value

    def crawler(self, name: str) -> FakeCrawler | None:
        """A crawler; read it through `describe`."""
        return self._glue.crawlers.get(name)

    def crawlers(self) -> list[FakeCrawler]:
        """All crawlers, in the order of their making."""
        return list(self._glue.crawlers.values())

    def update_crawler(self, crawler: FakeCrawler, changes: Json) -> None:
        """Change members of a crawler, named as in CreateCrawler."""
        for name, value in changes.items():
            setattr(crawler, LOWER_AFTER_UPPER.sub("_", name).lower(), value)
        crawler.version += 1

    def delete_crawler(self, name: str) -> None:
        """Forget a crawler."""
        self._glue.delete_crawler(name)

    def job(self, name: str) -> FakeJob | None:
        """A job; read it through `describe`."""
        return self._glue.jobs.get(name)

    def database_exists(self, name: str) -> bool:
        """Whether a database exists."""
        return name in self._glue.databases

    def create_database(self, name: str) -> None:
        """Add a database, unless another crawl has just done so."""
        with contextlib.suppress(DatabaseAlreadyExistsException):
            self._glue.create_database(name, {"Name": name})

    def tables(self, database: str) -> dict[str, Json]:
        """The tables of a database by name, described as in GetTables."""
        return {each.name: copy.deepcopy(each.as_dict()) for each in self._glue.get_tables(database, None)}

    def create_table(self, database: str, table: Json) -> None:
        """Add a table."""
        self._glue.create_table(database, table["Name"], copy.deepcopy(table))

    def update_table(self, database: str, table: Json) -> None:
        """Replace a table by a new version of it."""
        self._glue.update_table(database, table["Name"], copy.deepcopy(table))

    def delete_table(self, database: str, name: str) -> None:
        """Drop a table."""
        self._glue.delete_table(database, name)

    def partitions(self, database: str, table: str) -> dict[tuple[str, ...], Json]:
        """Partitions of a table by their values."""
        kept = self._glue.get_table(database, table).partitions.values()
        return {tuple(each.values): copy.deepcopy(each.partition_input) for each in kept}

    def create_partition(self, database: str, table: str, partition: Json) -> None:
        """Add a partition."""
        self._glue.create_partition(database, table, copy.deepcopy(partition))

    def update_partition(self, database: str, table: str, partition: Json) -> None:
        """Replace a partition by another with the same values."""
        self._glue.update_partition(database, table, copy.deepcopy(partition), partition["Values"])

    def delete_partition(self, database: str, table: str, values: Sequence[str]) -> None:
        """Drop a partition."""
        self._glue.get_table(database, table).delete_partition(list(values))  # type: ignore[arg-type]


def describe(kept: FakeCrawler | FakeJob) -> Json:
    """What moto says of a crawler or job, as JSON, without the nulls that AWS leaves out."""
    said = copy.deepcopy(kept.as_dict())
    return {
        name: value.replace(tzinfo=UTC).timestamp() if isinstance(value, datetime) else value
        for name, value in said.items()
        if value is not None
    }


def not_found(what: str) -> AwsError:
    """What Glue answers for something that does not exist."""
    return AwsError("EntityNotFoundException", what)


CatalogGone = EntityNotFoundException
"""Raised by moto when a database or table is deleted while it is written to."""


def _of_s3(status: int, code: str, message: str) -> str:
    return f"{message} (Service: Amazon S3; Status Code: {status}; Error Code: {code})"
