# Debian's prometheus, for alarms that are real alerts. Target `prometheus` is the image, target `programs` has the
# server and promtool for use without a cluster. BASE is any image of Debian or Ubuntu.
ARG BASE=debian:stable-slim
FROM ${BASE} AS installed
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

# The package's pages come with fonts and scripts that nobody looks at here.
FROM ${BASE} AS prometheus
COPY --from=installed /usr/bin/prometheus /usr/bin/promtool /usr/bin/
USER 65532:65532
ENTRYPOINT ["/usr/bin/prometheus"]

FROM scratch AS programs
COPY --from=installed /usr/bin/prometheus /usr/bin/promtool /
