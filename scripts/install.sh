#!/bin/sh
# Puts deltad below /usr/local, or takes it away again: ./install.sh [--remove]. Configuration,
# models and conversations are never written over and never removed.
set -eu
cd "$(dirname "$0")"

if [ "$(id -u)" != 0 ]; then
  echo "install: as root: sudo ./install.sh" >&2
  exit 1
fi

told() { # Lets the system know of units, users and directories, where it wants to.
  command -v systemctl >/dev/null 2>&1 && [ -d /run/systemd/system ] || return 0
  systemctl daemon-reload
}

files() { # Everything that is the package's own.
  (cd tree && find . -type f ! -path './etc/deltad/*' | sed 's|^\.||')
}

case "${1-}" in
  "")
    files | while read -r file; do
      install -D -m "$(stat -c %a "tree$file")" "tree$file" "$file"
    done
    [ -e /etc/deltad/deltad.toml ] ||
      install -D -m 0644 tree/etc/deltad/deltad.toml /etc/deltad/deltad.toml
    if command -v systemd-sysusers >/dev/null 2>&1; then
      systemd-sysusers deltad.conf
      systemd-tmpfiles --create deltad.conf
    fi
    told
    echo "deltad is installed. Next: put a model into /var/lib/deltad/models, name it in"
    echo "/etc/deltad/deltad.toml, then: systemctl enable --now deltad.socket"
    ;;
  --remove)
    if [ -d /run/systemd/system ]; then
      systemctl disable --now deltad.service deltad.socket 2>/dev/null || true
    fi
    files | while read -r file; do rm -f "$file"; done
    told
    echo "deltad is removed; /etc/deltad and /var/lib/deltad stay"
    ;;
  *)
    echo "usage: ./install.sh [--remove]" >&2
    exit 2
    ;;
esac
