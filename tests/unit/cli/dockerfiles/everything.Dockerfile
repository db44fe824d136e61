# syntax=docker/dockerfile:1
# Made by treadle dockerfile VERSION, to be built from "."
FROM python:3.13-slim-bookworm

RUN apt-get update
ENV A=1

RUN --mount=type=bind,source=pip.conf,target=/pip.conf PIP_CONFIG_FILE=/pip.conf python -m pip install --no-cache-dir treadle==VERSION
RUN --mount=type=bind,source=pip.conf,target=/pip.conf PIP_CONFIG_FILE=/pip.conf python -m pip install --no-cache-dir 'langchain-openai>=1' 'httpx[http2]; 1 > 0'
COPY ["lib/requirements.txt", "/app/lib/requirements.txt"]
RUN --mount=type=bind,source=pip.conf,target=/pip.conf PIP_CONFIG_FILE=/pip.conf python -m pip install --no-cache-dir -r /app/lib/requirements.txt

COPY [".", "/app"]
RUN --mount=type=bind,source=pip.conf,target=/pip.conf PIP_CONFIG_FILE=/pip.conf python -m pip install --no-cache-dir -e '/app/pack age'
# Variables are given to the container (--env-file), not put into it.
RUN touch /app/.env

WORKDIR /app
RUN mkdir -p /data && chown 10001:10001 /data
ENV HOST=0.0.0.0 PORT=2024 HOME=/data DATABASE_URI=sqlite:////data/treadle.db
VOLUME /data
USER 10001:10001
EXPOSE 2024
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/ok', timeout=5)"]
CMD ["treadle", "serve", "--config", "/app/langgraph.json"]
