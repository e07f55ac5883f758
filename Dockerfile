# Two stages: one builds, the other holds only what runs. Everything installed is pinned with hashes (deploy/).
# The Python is one that CI tests. Another base, or another registry: --build-arg PYTHON_IMAGE=…
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
# The path of a request is compiled: a compiler is needed here, and must not be missing in silence.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 SIDECAR_COMPILE=must
# Debian's own Python has its headers and venv in packages; Docker's has both.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev $([ -x /usr/local/bin/python3 ] || echo python3-dev python3-venv) \
 && rm -rf /var/lib/apt/lists/*

COPY deploy/constraints.txt deploy/constraints-extras.txt deploy/constraints-build.txt deploy/
# What runs has neither pip nor setuptools; sources of C extensions and debugging symbols stay here, too.
RUN python3 -m venv --without-pip /opt/sidecar \
 && python3 -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --no-deps -r deploy/constraints.txt -r deploy/constraints-build.txt \
 && /opt/build/bin/pip --python /opt/sidecar/bin/python install --require-hashes --no-deps -r deploy/constraints.txt -r deploy/constraints-extras.txt \
 && find /opt/sidecar -regex '.*\.\(pyx\|pxd\|pxi\|c\|h\|hash\)' -delete \
 && find /opt/sidecar -name '*.so' -exec strip --strip-unneeded {} +

COPY deploy/compile.py deploy/wheel.py deploy/
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
COPY config config
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /dist . \
 && /opt/build/bin/pip --python /opt/sidecar/bin/python install --no-deps --no-index /dist/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="retry-sidecar" \
      org.opencontainers.image.description="An HTTP proxy that runs beside a service and retries its calls" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/sidecar /opt/sidecar
COPY config /etc/sidecar
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sidecar
# The same file for every command: serve, check, show, test, health.
ENV PATH=/opt/sidecar/bin:$PATH PYTHONUNBUFFERED=1 SIDECAR_CONFIG=/etc/sidecar/sidecar.yaml
USER 10001:10001
# Bodies that outgrow memory are spooled here, also where the root is read-only; a tmpfs is quicker.
VOLUME /tmp

# It listens on loopback, as a sidecar shares its app's network. Where it does not, say so yourself:
#   docker run -e SIDECAR_LISTEN=0.0.0.0:8080 -e SIDECAR_UNKNOWN_HOSTS=refuse …
# Asks the admin address of the configuration that is mounted, as `sidecar health` does, for a third of its price.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python3", "-I", "-m", "sidecar.cli.probe"]
ENTRYPOINT ["sidecar"]
CMD ["serve"]
