#!/usr/bin/env bash
# Makes the base of the image where no registry is reachable: Debian with its Python, by debootstrap, under the name
# that the Dockerfile asks for. Needs root, debootstrap and buildah, and the Debian mirror that apt is configured for.
#   deploy/base-image.sh [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-$(sed -n 's/^ARG PYTHON_IMAGE=//p' Dockerfile)}
say() { printf 'base-image: %s\n' "$*"; }
die() { printf 'base-image: %s\n' "$*" >&2; exit 1; }

[[ $(id -u) == 0 ]] || die 'debootstrap needs root.'
for tool in debootstrap buildah; do
  command -v $tool >/dev/null || [[ -x /usr/sbin/$tool ]] || die "$tool is missing. Install it: apt install $tool"
done
# The release whose Python has the version that the name asks for.
case $name in
  *python:3.11*) suite=bookworm ;;
  *python:3.13*) suite=trixie ;;
  *) die "no Debian release has the Python of $name; use python:3.11-slim-bookworm or python:3.13-slim-trixie." ;;
esac
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$') || die 'apt is configured for no Debian mirror.'

work=$(mktemp -d)
container=''
trap '[[ -z $container ]] || buildah rm "$container" >/dev/null; rm -rf "$work"' EXIT
say "Debian $suite, from the mirror of this machine's apt (a minute) …"
PATH=$PATH:/usr/sbin:/sbin debootstrap --variant=minbase --include=ca-certificates,python3 "$suite" "$work/tree" "$mirror" \
  > "$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; die 'debootstrap failed.'; }
# What only a package manager that has run needs; and what nobody reads inside of a container.
rm -rf "$work"/tree/var/cache/apt/* "$work"/tree/var/lib/apt/lists/* "$work"/tree/var/log/* \
  "$work"/tree/usr/share/{doc,man,info,locale}/*
if [[ -f /etc/ssl/certs/ca-certificates.crt ]]; then
  # The mirror and the package index are reached as this machine reaches them, through authorities that it trusts.
  cp /etc/ssl/certs/ca-certificates.crt "$work/tree/etc/ssl/certs/ca-certificates.crt"
fi
{ apt-get indextargets --format 'deb $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' || true; } | grep -E "/debian(-security)?/* $suite" \
  | sort -u > "$work/tree/etc/apt/sources.list"
container=$(buildah from scratch)
buildah add --quiet "$container" "$work/tree" / >/dev/null
buildah config --cmd python3 "$container"
buildah commit --quiet "$container" "$name" >/dev/null
say "$name: $(du -sm "$work/tree" | cut -f1) MB"
