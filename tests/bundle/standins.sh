#!/usr/bin/env bash
# Stand-in images for machines that cannot pull any: each holds this machine's Debian binary under the path, user and
# working directory of the upstream image, and bears the name and tag that docker-compose.yml and the Dockerfile ask for.
# Usage: standins.sh PROMETHEUS_IMAGE ALERTMANAGER_IMAGE PYTHON_IMAGE PYTHON_PREFIX
#   needs: apt-get install prometheus prometheus-alertmanager busybox-static
# PYTHON_PREFIX is the folder of a relocatable CPython (of pyenv, uv, python-build-standalone; not Debian's own).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

with_libraries() { # ROOT FILE...: copies each file and the shared libraries that it needs
  local root=$1 file; shift
  for file in "$@"; do
    cp -L --parents "$file" "$root"
    { ldd "$file" 2>/dev/null || true; } | { grep -o '/[^ ]*' || true; } | sort -u | xargs -r -I{} cp -L --parents {} "$root"
  done
}
base() { # ROOT: users, name resolution, a shell and wget for health checks
  mkdir -p "$1"/{etc,tmp,bin,usr/bin}; chmod 1777 "$1/tmp"
  printf 'root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$1/etc/passwd"
  printf 'hosts: files dns\n' >"$1/etc/nsswitch.conf"
  cp /bin/busybox "$1/bin/"; for name in sh wget cat ls nc; do ln -sf busybox "$1/bin/$name"; done
}
server() { # NAME BINARY...: a root with the binaries, also under their upstream names in /bin
  local root=$work/$1 file; shift; base "$root"; with_libraries "$root" "$@"
  for file in "$@"; do ln -sf "$file" "$root/bin/$(basename "$file" | sed 's/^prometheus-//')"; done
}

server prometheus /usr/bin/prometheus
mkdir -p "$work"/prometheus/{etc/prometheus,prometheus}; chown 65534:65534 "$work/prometheus/prometheus"
tar -C "$work/prometheus" -c . | docker import -c 'USER nobody' -c 'WORKDIR /prometheus' -c 'EXPOSE 9090' -c 'VOLUME /prometheus' \
  -c 'ENTRYPOINT ["/bin/prometheus"]' -c 'CMD ["--config.file=/etc/prometheus/prometheus.yml","--storage.tsdb.path=/prometheus"]' \
  - "$1" >/dev/null

server alertmanager /usr/bin/prometheus-alertmanager
cp -rL --parents /usr/share/prometheus/alertmanager "$work/alertmanager"    # templates and stub page, read at its start
mkdir -p "$work"/alertmanager/{etc/alertmanager,alertmanager}; chown 65534:65534 "$work/alertmanager/alertmanager"
tar -C "$work/alertmanager" -c . | docker import -c 'USER nobody' -c 'WORKDIR /alertmanager' -c 'EXPOSE 9093' \
  -c 'ENTRYPOINT ["/bin/alertmanager"]' -c 'CMD ["--config.file=/etc/alertmanager/alertmanager.yml","--storage.path=/alertmanager"]' \
  - "$2" >/dev/null

root=$work/python prefix=$4; base "$root"; mkdir -p "$root"/{usr/local,root,sbin}
version=$("$prefix/bin/python3" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# what the prefix has of its own packages, tests and caches stays behind; `python -m venv` brings its own pip
tar -C "$prefix" -c --exclude='site-packages/*' --exclude=__pycache__ --exclude='*.a' \
  --exclude="lib/python$version"/{test,idlelib,tkinter,'config-*'} bin lib | tar -C "$root/usr/local" -x
find "$root" -type f \( -name '*.so*' -o -name "python$version" \) -exec ldd {} \; 2>/dev/null \
  | { grep -o '/[^ ]*\.so[^ ]*' || true; } | { grep -v "^$prefix\|^$root" || true; } | sort -u | xargs -r -I{} cp -L --parents {} "$root"
# what wheels ask for beside the libraries of CPython itself
ldconfig -p | grep -oE '/[^ ]*/(libpthread\.so\.0|libdl\.so\.2|libutil\.so\.1|librt\.so\.1|libm\.so\.6|libgcc_s\.so\.1|libstdc\+\+\.so\.6)$' \
  | grep -v lib32 | xargs -r -I{} cp -L --parents {} "$root"
with_libraries "$root" /bin/dash /sbin/ldconfig /usr/bin/env; ln -sf dash "$root/bin/sh"
for name in mkdir rm chown chmod ln cp mv id; do ln -sf busybox "$root/bin/$name"; done
ln -sf "python$version" "$root/usr/local/bin/python"; ln -sf "python$version" "$root/usr/local/bin/python3"
# pip inside a build needs this machine's certificates
cp -L --parents /etc/ssl/certs/ca-certificates.crt "$root"; cp /etc/passwd /etc/group "$root/etc/"
echo /usr/local/lib >"$root/etc/ld.so.conf"; chroot "$root" /sbin/ldconfig
tar -C "$root" -c . | docker import -c 'ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin' \
  -c 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' -c 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
  -c 'CMD ["python3"]' - "$3" >/dev/null
