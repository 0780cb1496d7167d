# The image of docker-compose.yaml: Airflow, this provider and the local AWS, with the versions of uv.lock, as in the
# tests.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
RUN pip install --no-cache-dir uv
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /src
# Rarely changed layers come first, so that a change of the package reinstalls no dependency.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-default-groups --group stack --extra local --no-install-project
COPY README.md LICENSE ./
COPY airflow_jobflow airflow_jobflow
RUN uv sync --frozen --no-default-groups --group stack --extra local --no-editable

FROM python:${PYTHON}-slim
# A new volume gets the owner of the directory at its mount point.
RUN useradd --uid 50000 --gid 0 --create-home airflow \
 && install -d -o airflow -g 0 -m 0775 /opt/airflow /opt/airflow/logs
COPY --from=build /opt/venv /opt/venv
COPY dags /opt/airflow/dags
ENV PATH=/opt/venv/bin:$PATH AIRFLOW_HOME=/opt/airflow PYTHONUNBUFFERED=1
USER airflow
WORKDIR /opt/airflow
