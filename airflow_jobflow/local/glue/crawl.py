"""A crawl: read the objects under a crawler's targets, and write their tables to the Data Catalog.

Invariants: everything is read before anything is written. A crawl that fails because of its data, or is stopped while
it reads, does not change the catalog.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.local.glue import tables
from airflow_jobflow.local.glue.classify import classify
from airflow_jobflow.local.glue.store import BucketUnusable, CatalogGone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_jobflow.local.glue.store import Store
    from airflow_jobflow.local.glue.tables import Table

Json = dict[str, Any]

ADD: Final = "ADD"
UPDATE: Final = "UPDATE"
DELETE: Final = "DELETE"
TABLE: Final = "TABLE"
PARTITION: Final = "PARTITION"

DEFAULT_POLICY: Final = {"UpdateBehavior": "UPDATE_IN_DATABASE", "DeleteBehavior": "DEPRECATE_IN_DATABASE"}
LONGEST_SUMMARY: Final = 255


class CrawlFailed(Exception):
    """A crawl failed; the message is its ErrorMessage."""


class CrawlStopped(Exception):
    """The crawl was stopped."""


class Changes:
    """The changes of a crawl in the catalog."""

    def __init__(self) -> None:
        self._names: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def record(self, kind: str, change: str, name: str) -> None:
        """Record a change.

        :param kind: ``TABLE`` or ``PARTITION``.
        :param change: ``ADD``, ``UPDATE`` or ``DELETE``.
        :param name: what was changed.
        """
        self._names[kind, change].append(name)

    def count(self, kind: str, change: str) -> int:
        """Return the number of changes.

        :param kind: ``TABLE`` or ``PARTITION``.
        :param change: ``ADD``, ``UPDATE`` or ``DELETE``.
        """
        return len(self._names[kind, change])

    def lines(self) -> list[str]:
        """Return the lines about the changes for the crawler's log."""
        lines = []
        for kind in sorted({kind for (kind, _), names in self._names.items() if names}):
            lines.append(f"Run Summary For {kind}:")
            lines += [
                f"{change}: {self.count(kind, change)}" for change in (ADD, UPDATE, DELETE) if self.count(kind, change)
            ]
        return lines

    def summary(self) -> str:
        """Return ``Summary`` of ListCrawls: JSON, with names only if it does not become too long."""
        summary: Json = {}
        for (kind, change), names in sorted(self._names.items()):
            if names:
                summary.setdefault(kind, {})[change] = {"Details": {"names": names}, "Count": len(names)}
        text = json.dumps(summary, separators=(",", ":"))
        if len(text) > LONGEST_SUMMARY:
            counts = {
                kind: {change: {"Count": each["Count"]} for change, each in of_kind.items()}
                for kind, of_kind in summary.items()
            }
            text = json.dumps(counts, separators=(",", ":"))
        return text


class Crawl:
    """A crawl of the targets of a crawler.

    :param store: the objects and the catalog.
    :param crawler: the crawler as in GetCrawler.
    :param crawl_id: the id of the crawl.
    :param check: called regularly; raises `CrawlStopped` or `CrawlFailed` to end the crawl.
    :param write_log: called with each line for the crawler's log.
    """

    def __init__(
        self,
        store: Store,
        crawler: Mapping[str, Any],
        crawl_id: str,
        check: Callable[[], None],
        write_log: Callable[[str], None],
    ) -> None:
        self._store = store
        self._name: str = crawler["Name"]
        self._targets: Mapping[str, Any] = crawler.get("Targets") or {}
        self._database: str = crawler.get("DatabaseName") or ""
        self._table_prefix: str = crawler.get("TablePrefix") or ""
        self._policy = {**DEFAULT_POLICY, **(crawler.get("SchemaChangePolicy") or {})}
        self._crawl_id = crawl_id
        self._check = check
        self._log = write_log
        self.changes = Changes()

    def run(self) -> None:
        """Read the objects, then write the tables.

        :raises CrawlFailed: the crawl failed.
        :raises CrawlStopped: `check` raised it.
        """
        try:
            found = self._read()
            self._check()
            self._log(f"BENCHMARK : Classification complete, writing results to database {self._database}")
            if self._database and not self._store.database_exists(self._database):
                self._store.create_database(self._database)
                self._log(f"INFO : Created database {self._database}")
            self._write({table.name: table for table in found})
        except (BucketUnusable, CatalogGone) as error:
            raise CrawlFailed(str(error)) from None
        self._log("BENCHMARK : Finished writing to Catalog")
        for line in self.changes.lines():
            self._log(f"INFO : {line}")

    def _read(self) -> list[Table]:
        if others := sorted(kind for kind, targets in self._targets.items() if targets and kind != "S3Targets"):
            raise CrawlFailed(f"The local AWS crawls S3 targets only, not {', '.join(others)}")
        found: list[Table] = []
        for target in self._targets.get("S3Targets") or ():
            try:
                bucket, prefix = tables.split_path(target.get("Path", ""))
            except ValueError as error:
                raise CrawlFailed(str(error)) from None
            found += self._read_target(bucket, prefix, target.get("Exclusions") or ())
        return tables.named(found, self._table_prefix)

    def _read_target(self, bucket: str, prefix: str, exclusions: Any) -> list[Table]:
        objects = []
        folder = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
        for key in self._store.keys(bucket, prefix):
            self._check()
            if key != prefix and not key.startswith(folder):
                continue
            content = self._store.read(bucket, key) if tables.is_data(key, folder, exclusions) else None
            if not content:
                continue
            schema = classify(content)
            if schema is None:
                self._log(f"WARN : s3://{bucket}/{key} is classified as UNKNOWN and is not added to a table")
            else:
                objects.append(tables.Found(key, len(content), schema))
        return tables.tables(bucket, prefix, objects)

    def _write(self, found: Mapping[str, Table]) -> None:
        known = self._store.tables(self._database)
        for name, table in found.items():
            described = tables.table_input(table, self._name, self._crawl_id)
            self._write_table(described, known.get(name))
            self._write_partitions(described, table)
        for name, table_known in known.items():
            is_ours = table_known.get("Parameters", {}).get(tables.UPDATED_BY) == self._name
            if is_ours and name not in found:
                self._handle_missing(table_known)

    def _write_table(self, described: Json, known: Json | None) -> None:
        name = described["Name"]
        if known is None:
            self._store.create_table(self._database, described)
            self._record(TABLE, ADD, name, f"Created table {name} in database {self._database}")
        elif tables.same_schema(known, described):
            return
        elif self._policy["UpdateBehavior"] == "LOG":
            self._log(f"INFO : Schema of table {name} has changed; not updating it, because UpdateBehavior is LOG")
        else:
            self._store.update_table(self._database, described)
            self._record(TABLE, UPDATE, name, f"Updated table {name} in database {self._database}")

    def _write_partitions(self, described: Json, table: Table) -> None:
        found = table.partitions()
        known = self._store.partitions(self._database, table.name)
        for values, location in found.items():
            partition = tables.partition_input(described, values, location)
            label = f"{table.name}{list(values)}"
            if values not in known:
                self._store.create_partition(self._database, table.name, partition)
                self._record(PARTITION, ADD, label, f"Created partition {list(values)} of table {table.name}")
            elif not tables.same_schema(known[values], partition) and self._policy["UpdateBehavior"] != "LOG":
                self._store.update_partition(self._database, table.name, partition)
                self._record(PARTITION, UPDATE, label, f"Updated partition {list(values)} of table {table.name}")
        if self._policy["DeleteBehavior"] == "DELETE_FROM_DATABASE":
            for values in known.keys() - found.keys():
                self._store.delete_partition(self._database, table.name, values)
                self._record(PARTITION, DELETE, f"{table.name}{list(values)}", f"Deleted partition {list(values)}")

    def _handle_missing(self, known: Json) -> None:
        """Handle a table of this crawler that no longer has objects."""
        name, behaviour = known["Name"], self._policy["DeleteBehavior"]
        if behaviour == "DELETE_FROM_DATABASE":
            self._store.delete_table(self._database, name)
            self._record(TABLE, DELETE, name, f"Deleted table {name} from database {self._database}")
        elif behaviour == "DEPRECATE_IN_DATABASE" and tables.DEPRECATED_BY not in known["Parameters"]:
            table: Json = {member: known[member] for member in TABLE_INPUT if member in known}
            table["Parameters"] = {**known["Parameters"], tables.DEPRECATED_BY: str(int(time.time() * 1000))}
            self._store.update_table(self._database, table)
            self._record(
                TABLE,
                UPDATE,
                name,
                f"Table {name} is marked deprecated because a matching schema was not found at the table's location.",
            )

    def _record(self, kind: str, change: str, name: str, message: str) -> None:
        self.changes.record(kind, change, name)
        self._log(f"INFO : {message}")


TABLE_INPUT: Final = ("Name", "Owner", "Retention", "TableType", "PartitionKeys", "Parameters", "StorageDescriptor")
"""The members of a table that a crawler writes."""
