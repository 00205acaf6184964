#!/bin/sh
# Makes .venv from uv.lock. Says in one line what is missing when the machine lacks something that only its owner can install.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

fail() { printf '%s\n' "$1" >&2; exit 2; }
may_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

command -v "$python" >/dev/null || fail "No $python here: install Python 3.11 to 3.13, or name one: make PYTHON=python3.12"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    fail "$("$python" --version) does not fit: Python 3.11 to 3.13 is needed, name one: make PYTHON=python3.12"

if ! [ -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if may_install; then
            apt-get update -qq && apt-get install -y -qq "$version"
        else
            fail "This Python cannot make environments: run 'apt-get install $version' as root, then try again"
        fi
    fi
    rm -rf .venv
    "$python" -m venv .venv
fi

# The stamp holds what the environment was made from and where, so that a second run costs nothing.
stamp=.venv/installed-from
if ! { pwd; cat pyproject.toml uv.lock; } | cmp -s - "$stamp"; then
    # A moved or copied environment has console scripts that point elsewhere: python -m works in any case.
    .venv/bin/python -m pip --quiet --disable-pip-version-check install 'uv>=0.9'
    .venv/bin/python -m uv sync --quiet --frozen --extra embedded --python .venv/bin/python
    { pwd; cat pyproject.toml uv.lock; } >"$stamp"
fi

mkdir -p .venv/openmp .payments
if ! .venv/bin/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
    bundled=$(find "$PWD/.venv/lib" -path '*scikit_learn.libs/libgomp*' | head -n 1)
    [ -n "$bundled" ] || fail "The OpenMP runtime is missing: run 'apt-get install libgomp1' as root, then try again"
    ln -sf "$bundled" .venv/openmp/libgomp.so.1
fi
