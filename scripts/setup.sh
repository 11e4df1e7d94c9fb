#!/bin/sh
# Makes the environment in .venv, once: a stamp that is written last holds a hash of what it was made from.
# Without the stamp, with another hash, or with a broken interpreter it is made again. What tests and checks of style
# use beside it is added where it is asked for: setup.sh dev
set -eu
cd "$(dirname "$0")/.."
extra=${1:-onnx}

for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "${python:-}" ]; then
    echo "slimnet needs Python 3.11 or newer, and none was found; install it, or name it with PYTHON=/path/to/python" >&2
    exit 1
fi

wanted=$(cat pyproject.toml scripts/setup.sh | cksum; pwd)
checks='import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))'
stamped() { [ "$(cat ".venv/stamp-$1" 2>/dev/null)" = "$wanted" ]; }
if (stamped onnx || stamped dev) &&
    .venv/bin/python -c "$checks" torch torchvision optuna wandb pydantic typer plotly rich 2>/dev/null; then
    if stamped "$extra" || stamped dev; then
        exit 0
    fi
    echo "Adding to .venv what tests and checks use"
else
    echo "Setting up .venv (torch and its companions are several GB; a few minutes, once)"
    rm -rf .venv
    "$python" -m venv .venv || {
        echo "could not make .venv with $python; on Debian and Ubuntu: apt-get install python3-venv" >&2
        exit 1
    }
fi

install() { # $1: uv or pip; its last line is its status
    if [ "$1" = uv ]; then
        "$uv" pip install --python .venv/bin/python --config-settings editable_mode=compat -e ".[$extra]" 2>&1
    else
        .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off \
            --config-settings editable_mode=compat -e ".[$extra]" 2>&1
    fi
    echo "status $?"
}

# One line that moves on a terminal, and a line per large download elsewhere; everything is in setup.log.
log=.venv/setup.log
[ -t 1 ] && moving=1 || moving=0
show() {
    awk -v moving="$moving" '
    /^ *Downloading .*[MG]i?B\)/ || /^(Installing|Installed|Prepared|Resolved)/ {
        sub(/^ */, ""); name = $1 " " substr($2, 1, 60) " " $3 (/^ *Downloading/ ? " " $4 : "")
        if (moving) printf "\r\033[K  %s", name
        else if (/Gi?B\)|[0-9][0-9][0-9]\.[0-9] ?Mi?B|^Install/) print "  " name
        fflush()
    }
    END { if (moving) printf "\r\033[K" }'
}

# uv, where there is one, takes a fraction of the time; pip where uv cannot, for it may know of other indexes. Both
# take torch as the package index has it, which suits every machine: with CUDA on Linux, with Metal on macOS.
uv=${UV:-uv}
"$uv" --version > /dev/null 2>&1 && installers="uv pip" || installers=pip
for installer in $installers; do
    install "$installer" | tee "$log" | show
    [ "$(tail -n 1 "$log")" != "status 0" ] || break
    grep -v '^WARNING' "$log" | tail -n 15 >&2
    echo "$installer could not install the packages; see above" >&2
done
if [ "$(tail -n 1 "$log")" != "status 0" ]; then
    echo "run make setup again when the package index can be reached; the whole log is $log" >&2
    exit 1
fi
echo "$wanted" > ".venv/stamp-$extra"
