#!/usr/bin/env bash
# Installs the Python client into a private environment (cached by what it is made of) and tests it
# against the real server. Exit 77 (skipped) if the packages cannot be had.
# Usage: run.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir="$1" build_dir="$2"
if [ ! -x "$build_dir/bin/anabranchd" ]; then
  echo "skipped: $build_dir/bin/anabranchd is not built"; exit 77
fi
venv="$build_dir/python-client"
stamp="$(cat "$source_dir"/clients/python/{pyproject.toml,setup.py} "$source_dir"/clients/python/src/anabranch/*.py \
  "$source_dir"/proto/anabranch/v1/*.proto | sha256sum)"
if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
      "$source_dir/clients/python[test]"; then
    if "$venv/bin/python" -m pip download --quiet --no-deps -d "$venv/probe" grpcio >/dev/null 2>&1; then
      echo "the package does not install (above)"; exit 1
    fi
    echo "skipped: no package index can be reached to install grpcio and pytest"; exit 77
  fi
  echo "$stamp" > "$venv/stamp"
fi
export ANABRANCHD="$build_dir/bin/anabranchd" ANABRANCH_MODEL="$source_dir/deploy/models/recall"
exec "$venv/bin/python" -m pytest -q -c "$source_dir/clients/python/pyproject.toml" -p no:cacheprovider \
  "$source_dir/tests/clients/python" "${@:3}"
