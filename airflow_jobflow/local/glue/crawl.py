"""One crawl: reads the objects under a crawler's targets and writes the tables they make to the catalog.

What always holds: nothing is written before everything has been read, so that a crawl that fails for its data, or
is stopped while it reads, leaves the catalog as it was.
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
    """Why a crawl failed, in words for its ErrorMessage."""


class CrawlStopped(Exception):
    """Someone stopped the crawl."""


class Changes:
    """What a crawl changed in the catalog."""

    def __init__(self) -> None:
        self._names: defaultdict[tuple[str, str], list[str]] = defaultdict(list)

    def note(self, kind: str, change: str, name: str) -> None:
        """A table (or partition) was added, updated or deleted."""
        self._names[kind, change].append(name)

    def count(self, kind: str, change: str) -> int:
        """How many changes of one kind there were."""
        return len(self._names[kind, change])

    def lines(self) -> list[str]:
        """What a crawler's log says of them."""
        said = []
        for kind in sorted({kind for (kind, _), names in self._names.items() if names}):
            said.append(f"Run Summary For {kind}:")
            said += [
                f"{change}: {self.count(kind, change)}" for change in (ADD, UPDATE, DELETE) if self.count(kind, change)
            ]
        return said

    def summary(self) -> str:
        """``Summary`` of ListCrawls: JSON, with the names of the tables if there is room for them."""
        told: Json = {}
        for (kind, change), names in sorted(self._names.items()):
            if names:
                told.setdefault(kind, {})[change] = {"Details": {"names": names}, "Count": len(names)}
        text = json.dumps(told, separators=(",", ":"))
        if len(text) > LONGEST_SUMMARY:
            counts = {kind: {change: {"Count": each["Count"]} for change, each in told[kind].items()} for kind in told}
            text = json.dumps(counts, separators=(",", ":"))
        return text


class Crawl:
    """Crawls the targets of one crawler.

    :param crawler: as GetCrawler shows it.
    :param check: called now and then; raises `CrawlStopped` or `CrawlFailed` if the crawl is to end.
    :param say: takes what goes to the crawler's log.
    """

    def __init__(
        self,
        store: Store,
        crawler: Mapping[str, Any],
        crawl_id: str,
        check: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._store = store
        self._name: str = crawler["Name"]
        self._targets: Mapping[str, Any] = crawler.get("Targets") or {}
        self._database: str = crawler.get("DatabaseName") or ""
        self._table_prefix: str = crawler.get("TablePrefix") or ""
        self._policy = {**DEFAULT_POLICY, **(crawler.get("SchemaChangePolicy") or {})}
        self._crawl_id = crawl_id
        self._check = check
        self._say = say
        self.changes = Changes()

    def run(self) -> None:
        """Read, then write.

        :raises CrawlFailed: with the reason.
        :raises CrawlStopped: `check` said so.
        """
        try:
            found = self._read()
            self._check()
            self._say(f"BENCHMARK : Classification complete, writing results to database {self._database}")
            if self._database and not self._store.database_exists(self._database):
                self._store.create_database(self._database)
                self._say(f"INFO : Created database {self._database}")
            self._write({table.name: table for table in found})
        except (BucketUnusable, CatalogGone) as error:
            raise CrawlFailed(str(error)) from None
        self._say("BENCHMARK : Finished writing to Catalog")
        for line in self.changes.lines():
            self._say(f"INFO : {line}")

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
                self._say(f"WARN : s3://{bucket}/{key} is classified as UNKNOWN: no table is made of it")
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
            made_here = table_known.get("Parameters", {}).get(tables.UPDATED_BY) == self._name
            if made_here and name not in found:
                self._missing(table_known)

    def _write_table(self, described: Json, known: Json | None) -> None:
        name = described["Name"]
        if known is None:
            self._store.create_table(self._database, described)
            self._note(TABLE, ADD, name, f"Created table {name} in database {self._database}")
        elif tables.same_schema(known, described):
            return
        elif self._policy["UpdateBehavior"] == "LOG":
            self._say(f"INFO : Schema of table {name} has changed; it is not updated, for UpdateBehavior is LOG")
        else:
            self._store.update_table(self._database, described)
            self._note(TABLE, UPDATE, name, f"Updated table {name} in database {self._database}")

    def _write_partitions(self, described: Json, table: Table) -> None:
        found = table.partitions()
        known = self._store.partitions(self._database, table.name)
        for values, location in found.items():
            partition = tables.partition_input(described, values, location)
            label = f"{table.name}{list(values)}"
            if values not in known:
                self._store.create_partition(self._database, table.name, partition)
                self._note(PARTITION, ADD, label, f"Created partition {list(values)} of table {table.name}")
            elif not tables.same_schema(known[values], partition) and self._policy["UpdateBehavior"] != "LOG":
                self._store.update_partition(self._database, table.name, partition)
                self._note(PARTITION, UPDATE, label, f"Updated partition {list(values)} of table {table.name}")
        if self._policy["DeleteBehavior"] == "DELETE_FROM_DATABASE":
            for values in known.keys() - found.keys():
                self._store.delete_partition(self._database, table.name, values)
                self._note(PARTITION, DELETE, f"{table.name}{list(values)}", f"Deleted partition {list(values)}")

    def _missing(self, known: Json) -> None:
        """A table of this crawler's has no objects any more."""
        name, behaviour = known["Name"], self._policy["DeleteBehavior"]
        if behaviour == "DELETE_FROM_DATABASE":
            self._store.delete_table(self._database, name)
            self._note(TABLE, DELETE, name, f"Deleted table {name} from database {self._database}")
        elif behaviour == "DEPRECATE_IN_DATABASE" and tables.DEPRECATED_BY not in known["Parameters"]:
            kept: Json = {member: known[member] for member in TABLE_INPUT if member in known}
            kept["Parameters"] = {**known["Parameters"], tables.DEPRECATED_BY: str(int(time.time() * 1000))}
            self._store.update_table(self._database, kept)
            self._note(
                TABLE,
                UPDATE,
                name,
                f"Table {name} is marked deprecated because a matching schema was not found at the table's location.",
            )

    def _note(self, kind: str, change: str, name: str, said: str) -> None:
        self.changes.note(kind, change, name)
        self._say(f"INFO : {said}")


TABLE_INPUT: Final = ("Name", "Owner", "Retention", "TableType", "PartitionKeys", "Parameters", "StorageDescriptor")
"""Members of a table that a crawler writes."""
