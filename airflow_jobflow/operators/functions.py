"""Calls of Python functions in jobs: what a job gets to call one, and what the task returns or raises for it.

A job gets ``python -c`` with a line that runs ``JOBFLOW_RUNNER``, which is ``function_runner``. That reads

- ``JOBFLOW_FUNCTION``: the source of the function and its arguments, as compressed JSON, or the address in S3 of that.
- ``JOBFLOW_ITEM``: in a map, what replaces the first argument, as JSON.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import inspect
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from airflow_jobflow.exceptions import InvalidParameter, JobFailed, SubmissionError, invalid_parameter
from airflow_jobflow.function_runner import DEEPEST
from airflow_jobflow.jobs.causes import RESULT_NOT_READ
from airflow_jobflow.jobs.environment import with_variables
from airflow_jobflow.jobs.function_source import FunctionSource, source_of
from airflow_jobflow.jobs.results import LOG, MAX_INLINE

if TYPE_CHECKING:
    from airflow_jobflow.aws import Access
    from airflow_jobflow.exceptions import JobflowError
    from airflow_jobflow.jobs.model import Outcome, Snapshot

RUNNER: Final = "JOBFLOW_RUNNER"
FUNCTION: Final = "JOBFLOW_FUNCTION"
ITEM: Final = "JOBFLOW_ITEM"

BOOTSTRAP: Final = f"import base64,os,zlib;exec(zlib.decompress(base64.b64decode(os.environ['{RUNNER}'])))"

JSON, CLOUDPICKLE = SERIALIZERS = ("json", "cloudpickle")
"""How arguments and return values are serialized."""

RESERVED: Final = 512
"""Characters of the overrides that are kept free for the container's name, its size and the address of its result."""

MOST: Final = {LOG: 15_000}
"""The most characters of a result in the log, where Docker splits lines of 16 KB; in S3 it is ``MAX_INLINE``."""

RAISED_EXIT_CODE: Final = 1
"""The exit code of a job whose function raised an exception."""


@dataclass
class FunctionCall:
    """A call of a function in a job, or in the jobs of a map.

    :param function: the function.
    :param serializer: one of ``SERIALIZERS``.
    :param python: the interpreter in the image.
    :param result: where the result is written: ``s3://bucket/prefix``, ``log``, or None for no result.
    :param args, kwargs: the arguments.
    :param is_map: whether the first argument is a list, with an element for each job. Default False.
    :raises InvalidParameter: an argument cannot be serialized.
    """

    function: Callable[..., Any]
    serializer: str
    python: str
    result: str | None
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    is_map: bool = False
    source: FunctionSource = field(init=False)
    items: list[dict[str, Any]] = field(init=False, default_factory=list)
    """The items of a map."""
    variables: dict[str, str] = field(init=False, default_factory=dict)
    """What every job gets; the jobs of a map through its ``job_group``, because there may be ten thousand requests."""
    stored: tuple[str, str] | None = field(init=False, default=None)
    """The address and the text of the object that the jobs read; None if the overrides have everything."""
    _arguments: Any = field(init=False)

    def __post_init__(self) -> None:
        self.source = source_of(self.function)
        bound = inspect.signature(self.function).bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        if self.is_map:
            first = next(iter(bound.arguments))
            elements = _listed(bound.arguments[first])
            if isinstance(elements, str | bytes | Mapping) or not isinstance(elements, Sequence):
                raise InvalidParameter(f"{self}: argument {first} must be a list with an element for each call")
            texts = [json.dumps(self._serialized(each, f"{first}[{n}]")) for n, each in enumerate(elements)]
            self.items = [{"environment": {ITEM: text}} for text in texts]
            bound.arguments[first] = None
        for name, value in bound.arguments.items():
            bound.arguments[name] = _listed(value)
            self._serialized(bound.arguments[name], name)
        self._arguments = self._serialized([list(bound.args), bound.kwargs], "arguments")

    def __str__(self) -> str:
        return f"Function {self.source.name}"

    @property
    def returns_json(self) -> bool:
        """Whether the result of the job is the return value, which any process can read."""
        return self.serializer == JSON

    def _serialized(self, value: Any, name: str) -> Any:
        """Return an argument as JSON has it."""
        from airflow_jobflow.function_runner import not_json

        if self.returns_json:
            if wrong := next(not_json(value, f"argument {name}"), ""):
                rule = "Pass something else, such as text, or use serializer='cloudpickle'"
                raise InvalidParameter(f"{self}: {wrong}. {rule}")
            return value
        cloudpickle = _cloudpickle()
        try:
            return base64.b64encode(cloudpickle.dumps(value)).decode()
        except Exception as error:
            rule = "Pass something else, from which the function makes it"
            raise InvalidParameter(f"{self}: argument {name} cannot be pickled: {error}. {rule}") from error

    # The start.

    def in_job(self, environment: Mapping[str, str], overrides: Any, limit: int) -> dict[str, Any]:
        """Return the parameters ``command`` and ``environment`` that make a job call the function.

        What the jobs of a map get besides is in ``items`` and ``variables``.

        :param environment: the user's variables.
        :param overrides: the user's overrides.
        :param limit: the most characters that the overrides of a job may have.
        :raises InvalidParameter: the source or the arguments are too long.
        """
        command = [self.python, "-c", BOOTSTRAP]
        prefix = None if self.result in (None, LOG) else self.result
        fixed = _length({**environment, RUNNER: runner(), FUNCTION: ""}) + len(json.dumps([command, overrides]))
        fixed += RESERVED + len(prefix or "")
        lengths = [_length(item["environment"]) for item in self.items]
        room = limit - fixed - max(lengths, default=0)
        text = _compressed(json.dumps({**self.source.to_dict(), **self._members(prefix)}))
        if len(text) > room and prefix:
            uri = f"{prefix}/functions/{hashlib.sha256(text.encode()).hexdigest()}"
            self.stored, text = (uri, text), uri
        if len(text) > room:
            raise InvalidParameter(self._too_long(limit, fixed, len(text), lengths, prefix))
        self.variables = {RUNNER: runner(), FUNCTION: text}
        return {"command": command, "environment": {**environment, **({} if self.is_map else self.variables)}}

    def _too_long(self, limit: int, fixed: int, length: int, lengths: Sequence[int], prefix: str | None) -> str:
        """Return the message about overrides that are too long."""
        parts = [f"{length:,} for its source{'' if self.is_map else ' and arguments'}, compressed"]
        if lengths:
            parts.append(f"{max(lengths):,} for the argument of call {lengths.index(max(lengths))}")
        parts.append(f"{fixed:,} for everything else")
        advice = "Write large arguments to S3, and pass their addresses"
        if prefix is None:
            advice = "With result='s3://bucket/prefix', the first of these travels through S3"
        return f"{self}: the overrides of a job take {limit:,} characters, and it needs {', '.join(parts)}. {advice}"

    def _members(self, prefix: str | None) -> dict[str, Any]:
        advice = "Write it to S3 in the function, and return its address."
        if prefix is None:
            advice = f"With result='s3://bucket/prefix' it may have {MAX_INLINE:,}."
        return {
            "arguments": self._arguments,
            "serializer": self.serializer,
            "result": self.result,
            "most": MOST.get(self.result, MAX_INLINE) if self.result else 0,
            "advice": advice,
        }

    def store(self, access: Access) -> None:
        """Write to S3 what does not fit into the overrides, if anything. One PutObject call.

        :param access: the AWS connection to use.
        :raises SubmissionError: it cannot be written, so nothing may be started.
        """
        if self.stored is None:
            return
        from airflow_jobflow import results
        from airflow_jobflow.faults import CallError

        try:
            results.write(access, *self.stored)
        except CallError as error:
            raise SubmissionError(
                f"Nothing was started, because {self} could not be written to {self.stored[0]}: {error}"
            ) from error

    # The end.

    def value(self, outcome: Mapping[str, Any]) -> Any:
        """Return what the function returned; of a map, a list of what its calls returned.

        If the values of a map have more than 48 KB, this is the address of the list of their addresses.

        :param outcome: the outcome of the job or the map.
        :raises JobFailed: it cannot be unpickled on this worker.
        """
        value = outcome.get("result")
        if value is None and self.is_map:
            return outcome.get("result_uri")
        if self.returns_json or value is None:
            return value
        try:
            return [each and _unpickled(each) for each in value] if self.is_map else _unpickled(value)
        except Exception as error:
            raise JobFailed(
                f"{self} succeeded, but what it returned cannot be unpickled on this worker "
                f"({type(error).__name__}: {error}). The worker needs the packages of its image, and the same minor "
                "version of Python. A retry reads the value again, and starts no new job",
                outcome=dict(outcome),
                diagnosis=RESULT_NOT_READ,
            ) from error

    def failure(
        self, access: Access, service: str, ended: Snapshot, outcome: Outcome, error: JobflowError
    ) -> JobflowError:
        """Return the exception of a job that failed, with the traceback of what the function raised.

        :param access: the AWS connection to use.
        :param service: our name of the service.
        :param ended: the last snapshot of the job.
        :param outcome: of the job.
        :param error: the exception that says nothing of it. It is returned if the function raised nothing.
        """
        from airflow_jobflow import results
        from airflow_jobflow.outcomes import DETAILS

        if not isinstance(error, JobFailed) or ended.exit_code != RAISED_EXIT_CODE or self.result is None:
            return error
        written = results.of_job(access, service, self.result, ended, retry=DETAILS, arrival=0.0).value
        raised = written.get("raised") if isinstance(written, dict) else None
        if not isinstance(raised, dict):
            return error
        lines = [str(error).partition("\n")[0], f"{self} raised {raised.get('type')}: {raised.get('message')}"]
        lines += [f"  | {line}" for line in str(raised.get("traceback")).rstrip().split("\n")]
        lines += [f"Console: {outcome.console_url}"] if outcome.console_url else []
        return type(error)("\n".join(lines), outcome=error.outcome, diagnosis=error.diagnosis)


@cache
def runner() -> str:
    """Return the text of ``function_runner``, without what only its readers need, compressed."""
    from airflow_jobflow import function_runner

    tree = ast.parse(inspect.getsource(function_runner))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
            for each in node.args.args:
                each.annotation = None
        if isinstance(node, ast.FunctionDef | ast.Module):
            node.body = [each for each in node.body if not _is_text(each)]
    return _compressed(ast.unparse(tree))


def _listed(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return an argument with lists of what mapped tasks returned, in place of what reads it from Airflow."""
    is_lazy = isinstance(value, Sequence) and type(value).__module__.startswith("airflow.")
    is_container = is_lazy or type(value) in (dict, list, tuple)
    if not is_container or id(value) in above or len(above) > DEEPEST:
        return value
    each_of = value.items() if type(value) is dict else enumerate(value)
    made = {key: _listed(each, (*above, id(value))) for key, each in each_of}
    if not is_lazy and all(made[key] is value[key] for key in made):
        return value
    return made if type(value) is dict else (tuple if type(value) is tuple else list)(made.values())


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _compressed(text: str) -> str:
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _length(environment: Mapping[str, str]) -> int:
    """Return how many characters variables take in overrides."""
    return len(json.dumps(with_variables({}, environment)))


def _cloudpickle() -> Any:
    try:
        return import_module(CLOUDPICKLE)
    except ImportError as error:
        rule = "needs the package cloudpickle, here and in the image"
        raise invalid_parameter("serializer", CLOUDPICKLE, rule) from error


def _unpickled(text: str) -> Any:
    """Return a value that a job has pickled. This runs code that the job chose, on this worker."""
    return _cloudpickle().loads(base64.b64decode(text))
