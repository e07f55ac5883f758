# Two stages: one builds, the other holds only what runs. Everything installed is pinned with hashes (deploy/).
FROM python:3.12-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The path of a request is compiled: a compiler is needed here, and must not be missing in silence.
ENV SIDECAR_COMPILE=must
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*

COPY deploy/constraints.txt deploy/constraints-extras.txt deploy/constraints-build.txt deploy/
RUN python -m venv /opt/sidecar \
 && /opt/sidecar/bin/pip install --require-hashes -r deploy/constraints.txt -r deploy/constraints-extras.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes -r deploy/constraints.txt -r deploy/constraints-build.txt

COPY deploy/compile.py deploy/wheel.py deploy/
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
COPY config config
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/sidecar/bin/pip install --no-deps --no-index /dist/*.whl \
 && /opt/sidecar/bin/pip uninstall --yes pip

FROM python:3.12-slim
COPY --from=build /opt/sidecar /opt/sidecar
COPY config /etc/sidecar
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sidecar
ENV PATH=/opt/sidecar/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001

# It listens on loopback, as a sidecar shares its app's network. Where it does not, say so yourself:
#   docker run -e SIDECAR_LISTEN=0.0.0.0:8080 -e SIDECAR_UNKNOWN_HOSTS=refuse …
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["sidecar", "health"]
ENTRYPOINT ["sidecar"]
CMD ["serve", "-c", "/etc/sidecar/sidecar.yaml"]
