"""Everything of Airflow that is not public, or that differs between versions. No other package uses it.

Public is what Airflow's documentation calls its public interface: the names in ``airflow.sdk.__all__``, the exceptions
in ``airflow.sdk.exceptions``, ``airflow.triggers.base``, ``airflow.plugins_manager``, and the classes of providers.
``tests/unit/test_airflow_public.py`` checks that the other packages use nothing else.

Each function here names the versions of Airflow whose source was read for it. ``tests/unit/test_airflow_compat*.py``
run each function against the installed Airflow, so that a version that behaves differently fails there first.

No module compares versions. Where Airflow 3.2 lacks a feature, a module checks whether the feature exists: ``kills``,
``metrics``, ``retry_policy``, ``shared_streams``, ``starts`` and ``task_context``.
"""
