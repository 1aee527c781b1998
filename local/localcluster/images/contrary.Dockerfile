# A model server that does what tests tell it. BASE is any image with python3 (3.11 or newer).
ARG BASE=python:3.11-slim
FROM ${BASE} AS contrary
COPY --chmod=755 local/localcluster/images/contrary_server.py /usr/local/bin/serve
USER 65532:65532
# SageMaker starts an image with the argument `serve`.
CMD ["serve"]
