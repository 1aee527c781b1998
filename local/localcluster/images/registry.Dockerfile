# Debian's docker-registry, for tests of pulling. BASE is any image of Debian or Ubuntu.
ARG BASE=debian:stable-slim
FROM ${BASE} AS registry
RUN apt-get update && apt-get install --yes --no-install-recommends docker-registry \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENTRYPOINT ["docker-registry", "serve", "/etc/docker/registry/config.yml"]
