#!/usr/bin/env bash
# Set up the checkout's .venv:
#   tools/setup_env.sh demo   for make demo; mmcv without compiled ops
#   tools/setup_env.sh test   adds mmcv's compiled ops, mmdet, mmseg, pytest and ruff
# requirements/constraints.txt pins all versions. The script is idempotent: it keeps an
# environment that works and rebuilds one whose installation was interrupted.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-}
python=.venv/bin/python
constraints=requirements/constraints.txt
unfinished=.venv/unfinished

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

pinned() { # PACKAGE: print its version in the constraints
    sed -n "s/^$1==//p" "$constraints"
}

pip_install() { # leave a marker if interrupted: pip would not notice the damage
    touch "$unfinished"
    "$python" -m pip install --disable-pip-version-check \
        --constraint "$constraints" "$@"
    rm "$unfinished"
}

check_version() { # PYTHON
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
        die "$1 is not Python 3.11, 3.12 or 3.13, which the pinned packages need." \
            "Choose one for a new .venv: make PYTHON=/path/to/python3.11 ..."
}

create_venv() {
    check_version "$PYTHON"
    "$PYTHON" -c 'import ensurepip, venv' ||
        die "$PYTHON cannot create virtual environments. On Debian and Ubuntu:" \
            "apt-get install python3-venv"
    rm -rf .venv
    "$PYTHON" -m venv .venv
}

works() { # true if everything imports and mmmixmim is this checkout
    "$python" -I - "$profile" <<'EOF'
import importlib.util
import pathlib
import sys

modules = 'torch torchvision cv2 mmengine mmcv mmpretrain mim sklearn matplotlib'
if sys.argv[1] == 'test':
    modules += ' mmcv._ext mmdet mmseg pytest xdist importlinter ruff'
for module in modules.split():
    importlib.import_module(module)
# Find it without importing: an error in its code is no reason to reinstall.
spec = importlib.util.find_spec('mmmixmim')
if not spec or not pathlib.Path('mmmixmim/__init__.py').samefile(spec.origin):
    sys.exit(f'mmmixmim of this checkout is not installed: {spec}')
EOF
}

find_ops_wheel() { # set $wheel to its path, or to nothing
    local tags
    tags=$("$python" -c 'import sys, sysconfig
print("cp%d%d-" % sys.version_info[:2] + sysconfig.get_platform().replace("-", "_"))')
    wheel_dir=.wheels/ops-torch$(pinned torch)-$tags
    wheel=$(compgen -G "$wheel_dir/onedl_mmcv-$(pinned onedl-mmcv)-*.whl" || true)
}

check_compiler() {
    local headers
    headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    command -v "${CXX:-c++}" >/dev/null ||
        die "building mmcv's ops for the tests needs a C++ compiler, and" \
            "${CXX:-c++} was not found. On Debian and Ubuntu: apt-get install g++"
    [[ -e $headers/Python.h ]] ||
        die "building mmcv's ops for the tests needs Python.h, which was not found" \
            "in $headers. On Debian and Ubuntu: apt-get install python3-dev"
}

build_ops_wheel() {
    local log=.wheels/build.log build
    echo "Building mmcv's compiled ops, once per torch version: 10 to 20 minutes" \
        "on 2 cores. Log: $log"
    rm -rf .wheels/build.*
    mkdir -p "$wheel_dir"
    build=$(mktemp -d .wheels/build.XXXXXX)
    # No cache: pip cannot tell a wheel with ops from one without. No build isolation:
    # the build skips the ops unless it sees torch. CPU only, even if there is a GPU:
    # a CUDA build needs a toolkit that matches torch.
    CUDA_VISIBLE_DEVICES='' "$python" -m pip wheel --verbose --no-cache-dir --no-deps \
        --no-build-isolation --no-binary onedl-mmcv --constraint "$constraints" \
        --wheel-dir "$build" onedl-mmcv 2>&1 | tee "$log" |
        { grep --line-buffered -oE '\[[0-9]+/[0-9]+\]' || true; } ||
        die "building mmcv's ops failed: $(tail -n 20 "$log")"
    mv "$build"/*.whl "$wheel_dir"
    rm -r "$build"
}

install_ops() {
    local marker=.venv/mmcv-ops
    find_ops_wheel
    if [[ ! $wheel ]]; then
        build_ops_wheel
        find_ops_wheel
    fi
    if [[ $(cat "$marker" 2>/dev/null) != "$wheel" ]] ||
        ! "$python" -c 'import torch, mmcv._ext' 2>/dev/null; then
        pip_install --force-reinstall --no-deps --no-cache-dir "$wheel"
        echo "$wheel" >"$marker"
    fi
}

install() {
    pip_install -r requirements/build.txt
    pip_install --build-constraint "$constraints" -r requirements/runtime.txt \
        onedl-mmengine onedl-mmpretrain -r requirements/demo.txt
    # Build isolation hides torch, so this skips the ops and takes seconds. It does
    # nothing if mmcv is already installed, with or without ops.
    pip_install --build-constraint "$constraints" --no-cache-dir onedl-mmcv
    if [[ $profile == test ]]; then
        install_ops
        pip_install --build-constraint "$constraints" -r requirements/det.txt \
            -r requirements/seg.txt -r requirements/test.txt -r requirements/images.txt \
            -r requirements/data.txt
    fi
    pip_install --quiet --no-build-isolation --editable .
    # In the working directory it would shadow the installed metadata.
    rm -rf mmmixmim.egg-info
    # opencv-python needs libGL, which minimal machines lack. The headless build of
    # the same version replaces its files and does not need it.
    "$python" -c 'import cv2' 2>/dev/null ||
        pip_install --force-reinstall --no-deps opencv-python-headless
}

[[ $profile == demo || $profile == test ]] || die 'usage: tools/setup_env.sh demo|test'
PYTHON=${PYTHON:-python3}
inputs=$(cat "$0" setup.cfg setup.py pyproject.toml requirements/*.txt | cksum)
stamp=.venv/ready-$profile
hint='the installed packages do not import, see above. If a system library is missing,
install it (for OpenCV on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0) and
run this again.'

if [[ $(cat "$stamp" 2>/dev/null) == "$inputs" ]] && works; then
    exit
fi
fresh=
if [[ -e $unfinished ]] || ! "$python" -m pip --version >/dev/null 2>&1; then
    create_venv
    fresh=yes
fi
check_version "$python"
if [[ $profile == test ]]; then
    find_ops_wheel
    [[ $wheel ]] || check_compiler
fi
install
if ! works; then
    [[ ! $fresh ]] || die "$hint"
    echo 'The environment in .venv is broken: creating it again.'
    create_venv
    install
    works || die "$hint"
fi
echo "$inputs" >.venv/ready-demo
echo "$inputs" >"$stamp"
