# Build: the same `make setup` as everywhere finds a way to Node.js; esbuild puts the program into dist/.
FROM debian:bookworm-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl make python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Dependencies first: they change less often than the sources, so their layer can be used again.
COPY package.json package-lock.json .npmrc Makefile ./
COPY scripts/setup.sh scripts/
RUN make setup
COPY . .
# One folder that is copied as it is: the program, its command, the contract, and the Node.js that they were bundled with.
RUN make bundle \
 && install -d /out/opt/imageproxy /out/usr/local/bin \
 && cp -R package.json LICENSE bin crds dist /out/opt/imageproxy/ \
 && install -m 755 "$(readlink -f .tools/node/bin/node)" /out/usr/local/bin/node \
 && for command in bin/*; do ln -s "/opt/imageproxy/$command" /out/usr/local/bin/; done

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="imageproxy" \
      org.opencontainers.image.description="The same verified VM image on every cloud site" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# qemu-img converts; xz, zstd and bzip2 decompress; prlimit (util-linux) bounds them; openssl verifies S/MIME; libstdc++ is Node's.
RUN apt-get update \
 && apt-get install -y --no-install-recommends bzip2 ca-certificates libstdc++6 openssl qemu-utils util-linux xz-utils zstd \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/* \
 && install -d -o 65532 -g 65532 -m 700 /var/lib/imageproxy
COPY --from=build /out/ /

# The root file system may be read-only: everything written goes below the one volume, temporary files as well.
ENV TMPDIR=/var/lib/imageproxy \
    IMAGEPROXY_STATE=/var/lib/imageproxy \
    IMAGEPROXY_MANIFESTS=/etc/imageproxy/manifests \
    NODE_ENV=production
WORKDIR /var/lib/imageproxy
USER 65532:65532
# Metrics and health.
EXPOSE 9464
# No init: Node.js handles SIGTERM itself and reaps its children, and they start none of their own that outlive them. No
# HEALTHCHECK: the kubelet ignores it, and asks /healthz and /readyz.
# As bin/imageproxy has it; another value in the environment of the pod goes before it.
ENV NODE_OPTIONS=--max-old-space-size=1024
ENTRYPOINT ["/usr/local/bin/node", "--disable-warning=ExperimentalWarning", "--max-semi-space-size=2", "/opt/imageproxy/dist/main.js"]
CMD ["run", "--telemetry", "0.0.0.0:9464"]
