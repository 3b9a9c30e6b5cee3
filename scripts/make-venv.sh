#!/bin/sh
# Make a virtual environment with pip in the folder named by $1, using the interpreter $2.
# Debian splits ensurepip from python3 (package python3-venv), so there is a second way and,
# where neither can work, a message that says what to install.
set -eu
venv=$1
python=$2

fail() {
    echo "setup: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "$python not found: install Python 3.11 or later"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: name a later one, as in make setup PYTHON=python3.12"

if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    exec "$python" -m venv "$venv"
fi
if "$python" -c 'import pip, venv' 2>/dev/null; then
    "$python" -m venv --without-pip "$venv"
    exec "$python" -m pip --python "$venv/bin/python" install --quiet pip
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: this Python cannot make virtual environments; installing python3-venv"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null &&
        exec "$python" -m venv "$venv"
fi
fail "$python cannot make virtual environments: run 'apt-get install python3-venv' as root"
