"""The console of the local AWS: read-only pages about its jobs, to which Airflow's links lead.

Invariants:

- A request changes nothing and is not counted as a call of AWS. Only GET and HEAD are allowed.
- A request for an unused region does not create it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from werkzeug.exceptions import BadRequestKeyError
from werkzeug.wrappers import Response

from airflow_jobflow.local.console.html import POLICY, PREFIX, Link, Page, Table, render
from airflow_jobflow.local.console.style import Json, NotFound, RegionReader, name_of
from airflow_jobflow.local.console.views import VIEWS
from airflow_jobflow.local.ecs.backend import EcsBackend, definition_named
from airflow_jobflow.local.errors import AwsError
from airflow_jobflow.local.moto_backends import Resources

if TYPE_CHECKING:
    from werkzeug.wrappers import Request

    from airflow_jobflow.local.service import Ledger

LISTED: Final = 100
"""Maximum number of jobs of a service on the first page."""


class Console:
    """The pages of one local AWS.

    :param account: its account.
    :param ask: makes a call, given service, region, action and request.
    :param regions: returns the regions in which a service was used; for an empty name, those of all services.
    :param ledger: the record of everything that was started.
    """

    def __init__(
        self,
        account: str,
        ask: Callable[[str, str, str, Json], Mapping[str, Any]],
        regions: Callable[[str], Sequence[str]],
        ledger: Ledger,
    ) -> None:
        self._account = account
        self._ask = ask
        self._regions = regions
        self._ledger = ledger

    def answer(self, path: str, request: Request) -> Response:
        """Respond to a request.

        :param path: the path below the prefix of all pages.
        :param request: the request.
        """
        if request.method not in ("GET", "HEAD"):
            return Response("These pages are read-only.\n", HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            page, status = self._page(path, request), HTTPStatus.OK
        except BadRequestKeyError as error:
            page, status = (
                _problem(f"The parameter {error.args[0]!r} is missing in the address."),
                HTTPStatus.BAD_REQUEST,
            )
        except NotFound as error:
            page, status = (
                _problem(f"{error} does not exist. The local AWS keeps nothing when it stops."),
                HTTPStatus.NOT_FOUND,
            )
        except AwsError as error:
            page, status = _problem(f"{error.code}: {error.message}"), HTTPStatus.NOT_FOUND
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        return Response(render(page), status, headers, content_type="text/html; charset=utf-8")

    def _page(self, path: str, request: Request) -> Page:
        if not path:
            return self._index()
        if path not in VIEWS:
            raise NotFound(f"The page {path}")
        service, view = VIEWS[path]
        region = request.args.get("region")
        used = self._regions(service)
        if region is not None:
            used = [each for each in used if each == region]
        problem: Exception = NotFound(f"{service or 'Anything'} in {region or 'any region'}")
        for each in used:
            try:
                return view(self._reader(each), request.args)
            except (NotFound, AwsError) as error:
                problem = error
        raise problem

    def _reader(self, region: str) -> RegionReader:
        resources, ecs = Resources(self._account, region), EcsBackend(self._account, region)
        return RegionReader(
            region,
            ask=lambda service, action, request: dict(self._ask(service, region, action, request)),
            log=resources.read_log,
            job_definition=resources.definition,
            task_definition=lambda arn: definition_named(ecs, arn),
        )

    def _index(self) -> Page:
        """Return the first page, with the last jobs."""
        started = {service: self._ledger.started(service)[: -LISTED - 1 : -1] for service in ("batch", "ecs", "glue")}
        batch = [
            (Link(each["jobName"], "batch-job", {"job": each["jobId"]}), each["jobId"]) for each in started["batch"]
        ]
        ecs = [
            (
                Link(name_of(each["taskArn"]), "ecs-task", {"cluster": each["clusterArn"], "task": each["taskArn"]}),
                each["family"],
            )
            for each in started["ecs"]
        ]
        glue = [
            (Link(each["crawler"], "glue-crawler", {"crawler": each["crawler"]}), f"crawl {each['crawl_id']}")
            if "crawler" in each
            else (Link(each["job"], "glue-job-run", {"job": each["job"], "run": each["run_id"]}), each["run_id"])
            for each in started["glue"]
        ]
        sections = [
            Table("Batch jobs, newest first", ("Name", "Job id"), batch),
            Table("ECS tasks, newest first", ("Task", "Family"), ecs),
            Table("Glue crawls and job runs, newest first", ("Name", "Run"), glue),
        ]
        facts = {"Account": self._account, "Regions": ", ".join(self._regions(""))}
        return Page("Console", "Local AWS", facts=facts, sections=sections, live=True)


def _problem(text: str) -> Page:
    return Page("Console", "Not found", facts={"": text})


__all__ = ["PREFIX", "Console"]
