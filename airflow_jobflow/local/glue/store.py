"""The use of moto's internals by the local Glue: objects in S3, crawlers, jobs, and the Data Catalog.

The supported versions of moto are limited, and a test checks what is used here.

Invariants: values are copied when they are read. The catalog is changed by the methods that moto's calls use.
"""

from __future__ import annotations

import contextlib
import copy
import re
from dataclasses import dataclass
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


JOB_UPDATE: Final = (
    "Description", "LogUri", "Role", "ExecutionProperty", "Command", "DefaultArguments", "NonOverridableArguments",
    "Connections", "MaxRetries", "AllocatedCapacity", "Timeout", "MaxCapacity", "WorkerType", "NumberOfWorkers",
    "SecurityConfiguration", "NotificationProperty", "GlueVersion", "CodeGenConfigurationNodes", "ExecutionClass",
    "SourceControlDetails",
)  # fmt: skip
"""The members of UpdateJob that moto keeps of a job."""


class BucketUnusable(Exception):
    """A bucket does not exist or belongs to another account. The message is that of S3."""


@dataclass(frozen=True, slots=True)
class Store:
    """The resources of one account and region in moto.

    :param account: the account.
    :param region: the region.
    """

    account: str
    region: str

    @property
    def _glue(self) -> GlueBackend:
        return glue_backends[self.account][self.region]

    @property
    def _s3(self) -> S3Backend:
        return s3_backends[self.account]["aws"]

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys of the objects under a prefix, sorted.

        :param bucket: the bucket.
        :param prefix: the prefix.
        :raises BucketUnusable: the bucket does not exist or belongs to another account.
        """
        try:
            found, _, _, _ = self._s3.list_objects(self._s3.get_bucket(bucket), prefix, None, None, None)
        except MissingBucket as error:
            raise BucketUnusable(_of_s3(404, "NoSuchBucket", error.message)) from None
        except AccessDeniedByLock as error:
            raise BucketUnusable(_of_s3(403, "AccessDenied", error.message)) from None
        return sorted(each.name for each in found)

    def read(self, bucket: str, key: str) -> bytes | None:
        """Return the content of an object; None if it does not exist or this account may not read it.

        :param bucket: the bucket.
        :param key: the key of the object.
        """
        try:
            found = self._s3.get_object(bucket, key)
        except (MissingBucket, AccessDeniedByLock):
            return None
        return None if found is None else found.value

    def crawler(self, name: str) -> FakeCrawler | None:
        """Return a crawler, or None; read it with `describe`.

        :param name: its name.
        """
        return self._glue.crawlers.get(name)

    def crawlers(self) -> list[FakeCrawler]:
        """Return all crawlers, in the order of their creation."""
        return list(self._glue.crawlers.values())

    def update_crawler(self, crawler: FakeCrawler, changes: Json) -> None:
        """Change a crawler.

        :param crawler: the crawler.
        :param changes: new values by their names in CreateCrawler.
        """
        for name, value in changes.items():
            setattr(crawler, LOWER_AFTER_UPPER.sub("_", name).lower(), value)
        crawler.version += 1

    def delete_crawler(self, name: str) -> None:
        """Delete a crawler.

        :param name: its name.
        """
        self._glue.delete_crawler(name)

    def job(self, name: str) -> FakeJob | None:
        """Return a job, or None; read it with `describe`.

        :param name: its name.
        """
        return self._glue.jobs.get(name)

    def update_job(self, name: str, update: Json) -> None:
        """Replace a job.

        :param name: its name.
        :param update: the new job as in UpdateJob; what it leaves out is reset.
        """
        job, described = self._glue.jobs[name], {"ExecutionProperty", "DefaultArguments"}
        for member in JOB_UPDATE:
            empty: Any = {} if member in described else None
            setattr(job, LOWER_AFTER_UPPER.sub("_", member).lower(), copy.deepcopy(update.get(member, empty)))
        job.last_modified_on = datetime.now(UTC).replace(tzinfo=None)

    def database_exists(self, name: str) -> bool:
        """Return whether a database exists.

        :param name: its name.
        """
        return name in self._glue.databases

    def create_database(self, name: str) -> None:
        """Create a database, unless another crawl has just created it.

        :param name: its name.
        """
        with contextlib.suppress(DatabaseAlreadyExistsException):
            self._glue.create_database(name, {"Name": name})

    def tables(self, database: str) -> dict[str, Json]:
        """Return the tables of a database by name, as in GetTables.

        :param database: the database.
        """
        return {each.name: copy.deepcopy(each.as_dict()) for each in self._glue.get_tables(database, None)}

    def create_table(self, database: str, table: Json) -> None:
        """Create a table.

        :param database: the database.
        :param table: the table as in CreateTable.
        """
        self._glue.create_table(database, table["Name"], copy.deepcopy(table))

    def update_table(self, database: str, table: Json) -> None:
        """Update a table.

        :param database: the database.
        :param table: the table as in UpdateTable.
        """
        self._glue.update_table(database, table["Name"], copy.deepcopy(table))

    def delete_table(self, database: str, name: str) -> None:
        """Delete a table.

        :param database: the database.
        :param name: its name.
        """
        self._glue.delete_table(database, name)

    def partitions(self, database: str, table: str) -> dict[tuple[str, ...], Json]:
        """Return the partitions of a table by their values.

        :param database: the database.
        :param table: the name of the table.
        """
        stored = self._glue.get_table(database, table).partitions.values()
        return {tuple(each.values): copy.deepcopy(each.partition_input) for each in stored}

    def create_partition(self, database: str, table: str, partition: Json) -> None:
        """Create a partition.

        :param database: the database.
        :param table: the name of the table.
        :param partition: the partition as in CreatePartition.
        """
        self._glue.create_partition(database, table, copy.deepcopy(partition))

    def update_partition(self, database: str, table: str, partition: Json) -> None:
        """Update a partition.

        :param database: the database.
        :param table: the name of the table.
        :param partition: the partition as in UpdatePartition.
        """
        self._glue.update_partition(database, table, copy.deepcopy(partition), partition["Values"])

    def delete_partition(self, database: str, table: str, values: Sequence[str]) -> None:
        """Delete a partition.

        :param database: the database.
        :param table: the name of the table.
        :param values: the values of the partition.
        """
        self._glue.get_table(database, table).delete_partition(list(values))  # type: ignore[arg-type]


def describe(stored: FakeCrawler | FakeJob) -> Json:
    """Return a crawler or job as JSON, without nulls.

    :param stored: the crawler or job in moto.
    """
    members = copy.deepcopy(stored.as_dict())
    return {
        name: value.replace(tzinfo=UTC).timestamp() if isinstance(value, datetime) else value
        for name, value in members.items()
        if value is not None
    }


def not_found(what: str) -> AwsError:
    """Return the error for something that does not exist.

    :param what: the message.
    """
    return AwsError("EntityNotFoundException", what)


CatalogGone = EntityNotFoundException
"""Raised by moto if a database or table is deleted while a crawl writes to it."""


def _of_s3(status: int, code: str, message: str) -> str:
    return f"{message} (Service: Amazon S3; Status Code: {status}; Error Code: {code})"
