#!/usr/bin/env bash
# Builds the image retry-sidecar:latest with docker, podman or buildah, whichever answers first: `make image`.
# buildah needs neither a daemon nor privileges of the kernel (chroot isolation, vfs storage). Where no registry is
# reachable, the base of `deploy/base-image.sh` is used.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' sidecar/__init__.py)
arguments=(--tag retry-sidecar:latest --label "org.opencontainers.image.version=$version")
revision=$(git rev-parse HEAD 2>/dev/null || true)
[[ -z $revision ]] || arguments+=(--label "org.opencontainers.image.revision=$revision")
[[ -z ${PYTHON_IMAGE:-} ]] || arguments+=(--build-arg "PYTHON_IMAGE=$PYTHON_IMAGE")

for engine in docker podman; do
  if $engine info >/dev/null 2>&1; then exec $engine build "${arguments[@]}" .; fi
done
if ! command -v buildah >/dev/null; then
  echo 'make image: no container engine answers. Install Docker, Podman or buildah (apt install buildah), then try again.' >&2
  exit 1
fi
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs}
base=${PYTHON_IMAGE:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)}
if ! buildah inspect --type image "$base" >/dev/null 2>&1 && ! timeout 60 buildah pull --quiet "$base" >/dev/null 2>&1; then
  echo "make image: $base cannot be pulled here; it is made by deploy/base-image.sh." >&2
  deploy/base-image.sh "$base"
fi
# The build reaches the package index as this machine does: by its pip configuration and the authorities it trusts.
settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
python3 -m pip config list 2>/dev/null | sed -n "s/^\(global\|install\|:env:\)\.\(cert\|index-url\|proxy\)='\(.*\)'$/\2 = \3/p" | sort -u | sed '1i [global]' > "$settings"
chmod 644 "$settings"
volumes=(--volume "$settings:/etc/pip.conf:ro")
trusted=/etc/ssl/certs/ca-certificates.crt
[[ ! -f $trusted ]] || volumes+=(--volume "$trusted:$trusted:ro")
# OCI images cannot hold a health check; Docker's format can.
buildah bud --layers --isolation chroot --format docker --pull-never "${volumes[@]}" "${arguments[@]}" .
