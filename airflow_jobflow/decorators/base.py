"""What the decorators have in common: an operator of this package that runs a Python function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Protocol, TypeVar, cast

from airflow_jobflow import params, params_json
from airflow_jobflow.airflow_compat.decorators import KNOWN_CONTEXT_KEYS, DecoratedOperator, task_decorator_factory
from airflow_jobflow.exceptions import invalid_parameter
from airflow_jobflow.jobs.function_source import source_of
from airflow_jobflow.operators.functions import JSON, SERIALIZERS, FunctionCall
from airflow_jobflow.operators.inputs import NOT_IN_CONTAINER_OVERRIDES
from airflow_jobflow.waiting.trigger_start import StartRules

if TYPE_CHECKING:
    from airflow.sdk import XComArg

    from airflow_jobflow.operators.spec import Spec

P = ParamSpec("P")
Item = TypeVar("Item")
AnySpec = TypeVar("AnySpec", bound="Spec")

REJECTED: Mapping[str, str] = {
    "command": "is set by the decorator: the function is the command",
    **dict.fromkeys(
        ("array_size", "array_properties", *NOT_IN_CONTAINER_OVERRIDES),
        "is not supported for functions; a map calls one for each element of a list",
    ),
}
"""Parameters of the operators that have no meaning for functions, each with the reason."""

FUNCTION_RULES = StartRules(("all",), lambda _: "the triggerer does not have the function")
"""Functions start on workers."""


class RunsFunction(DecoratedOperator):
    """An operator whose jobs call a Python function. List it before the operator.

    :param serializer: how arguments and return value travel: ``json`` or ``cloudpickle``. Default ``json``.
    :param python_command: the interpreter in the image; templated. Default ``python``.
    :param result: where the job writes what the function returns. Default ``log``; of a map None, for nowhere.
    :param result_required: whether a job without a usable result fails the task. Default True.
    """

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, "python_command")

    OVERRIDES: ClassVar[tuple[str, int]]
    """The parameter of the operator with the overrides of a job, and the most characters that they may have."""

    is_map: ClassVar[bool] = False
    """Whether the function is called once for each element of its first argument."""

    def __init__(
        self,
        *,
        serializer: str = JSON,
        python_command: str = "python",
        result: str | None = None,
        result_required: bool = True,
        **kwargs: Any,
    ) -> None:
        self.serializer = serializer
        self.python_command = python_command
        given: dict[str, Any] = {"items": []} if self.is_map else {"result": "log"}
        if result is not None:
            given["result"] = result
        super().__init__(result_required=result_required, **given, **kwargs)

    def check(self) -> None:
        """Validate the parameters; see the operator.

        :raises InvalidParameter: one of them is invalid, or has no meaning for a function.
        """
        task: Any = self
        params.reject(task, {name: why for name, why in REJECTED.items() if hasattr(task, name)})
        if not task.raise_on_failure:
            raise invalid_parameter("raise_on_failure", False, "a task of a function returns its value, or fails")
        cast("Any", super()).check()

    @cached_property
    def call(self) -> FunctionCall:
        """The call of the function, with the rendered arguments.

        :raises InvalidParameter: an argument cannot be serialized.
        """
        result = cast("Any", self).result
        return FunctionCall(
            self.python_callable,
            params.one_of("serializer", self.serializer, SERIALIZERS),
            params.non_empty_string("python_command", self.python_command),
            result and params.result("result", result),
            list(self.op_args),
            dict(self.op_kwargs),
            is_map=self.is_map,
        )

    def with_function(self, make: Callable[[], AnySpec]) -> AnySpec:
        """Return what the operator starts, whose jobs call the function.

        :param make: makes it of the parameters of the operator, with ``command`` and ``environment`` of the function.
        """
        given, (overrides, limit) = vars(self), self.OVERRIDES
        own = {name: given[name] for name in ("command", "environment")}
        environment = params_json.string_map("environment", own["environment"] or {})
        given.update(self.call.in_job(environment, given[overrides], limit))
        try:
            made = make()
        finally:
            given.update(own)
        made.function = self.call
        return made


class MapTask(Protocol[Item, P]):
    """A decorated function that is called once for each element of its first argument."""

    def __call__(self, items: Sequence[Item] | XComArg, /, *args: P.args, **kwargs: P.kwargs) -> XComArg:
        """Call the function once for each item.

        :param items: the list.
        :param args, kwargs: the other arguments, which are the same for all calls.
        :return: stands for the list of what the calls return.
        """

    def partial(self, **kwargs: Any) -> MapTask[Item, P]:
        """Return the task with some of its arguments; see Airflow."""

    def expand(self, **kwargs: Any) -> XComArg:
        """Map the task itself over lists; see Airflow."""

    def override(self, **kwargs: Any) -> MapTask[Item, P]:
        """Return the task with other parameters of its operator; see Airflow."""


class MapDecorator(Protocol):
    """Decorates a function that is called once for each element of its first argument."""

    def __call__(self, python_callable: Callable[Concatenate[Item, P], Any], /) -> MapTask[Item, P]:
        """Return the task.

        :param python_callable: the function.
        """


def decorator(operator: type[RunsFunction], function: Callable[..., Any] | None, **kwargs: Any) -> Any:
    """Return a decorated function, or what decorates it.

    :param operator: the operator that runs it.
    :param function: the function; None if the decorator was called with parameters only.
    :param kwargs: the parameters of the operator.
    :raises TypeError: the function cannot run in a container; the message says why.
    """
    if function is None:
        return partial(decorator, operator, **kwargs)
    source = source_of(function)
    parameters = list(inspect.signature(function).parameters.values())
    for parameter in parameters:
        if parameter.name in KNOWN_CONTEXT_KEYS:
            raise TypeError(
                f"{source.name} cannot run in a container, because Airflow's {parameter.name!r} is not there. Rename "
                "the parameter, and pass what the function needs as text, for example '{{ ds }}'"
            )
    if operator.is_map:
        kwargs.setdefault("multiple_outputs", False)  # what the function returns is one of many
        if not parameters or parameters[0].kind not in (
            inspect.Parameter.POSITIONAL_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        ):
            raise TypeError(f"{source.name} cannot be mapped: its first parameter must take an element of the list")
    return task_decorator_factory(function, decorated_operator_class=operator, **kwargs)
