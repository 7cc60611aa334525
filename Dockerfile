# Three images from one file: `slim` runs Airflow's own parts (API server, scheduler, DAG processor, triggerer), `worker`
# the tasks, `mlflow` the pages that show released models. The first two hold the DAGs too, so that an image is
# deployable alone; docker-compose.yaml mounts the project's files over them, so that a changed DAG needs no build.
FROM apache/airflow:3.3.1-python3.12 AS packages
# uv does not read pip's variables: hand them on. Proxies (HTTP_PROXY, ...) are build arguments that need no ARG.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG UV_DEFAULT_INDEX=${PIP_INDEX_URL:-https://pypi.org/simple}
ARG UV_INDEX=${PIP_EXTRA_INDEX_URL}
USER root
# A new named volume takes over the owner of the folder that it is mounted on.
RUN install -d -o airflow -g root /opt/fmops /opt/airflow/data /opt/mlflow
USER airflow
WORKDIR /opt/fmops
COPY requirements.txt constraints.txt ./
# Bytecode is made here once, or each new container makes it for what it imports.
RUN uv pip install --no-cache --compile-bytecode -r requirements.txt -c constraints.txt
WORKDIR /opt/airflow

FROM packages AS slim
COPY dags dags
COPY include include
COPY plugins plugins

FROM packages AS mlflow
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG UV_DEFAULT_INDEX=${PIP_INDEX_URL:-https://pypi.org/simple}
ARG UV_INDEX=${PIP_EXTRA_INDEX_URL}
RUN uv pip install --no-cache --compile-bytecode mlflow -c /opt/fmops/constraints.txt

FROM packages AS worker
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG UV_DEFAULT_INDEX=${PIP_INDEX_URL:-https://pypi.org/simple}
ARG UV_INDEX=${PIP_EXTRA_INDEX_URL}
WORKDIR /opt/fmops
COPY requirements-local.txt requirements-local-nodeps.txt ./
RUN uv pip install --no-cache --compile-bytecode -r requirements-local.txt -c constraints.txt \
 && uv pip install --no-cache --no-deps -r requirements-local-nodeps.txt
# The jobs environment: its packages cannot live beside Airflow's.
COPY requirements-jobs.txt constraints-jobs.txt ./
RUN uv venv jobs \
 && uv pip install --no-cache --python jobs/bin/python -r requirements-jobs.txt -c constraints-jobs.txt
WORKDIR /opt/airflow
COPY dags dags
COPY include include
COPY plugins plugins
