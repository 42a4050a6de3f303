#!/usr/bin/env bash
# Makes the checkout's .venv ready:
#   tools/setup_env.sh demo   what tools/demo.py needs; mmcv without compiled ops
#   tools/setup_env.sh test   also mmcv's compiled ops, mmdet, mmseg, pytest and ruff
# All versions come from requirements/constraints.txt. Again and again is fine: what
# works is kept, and an installation that was interrupted starts over.
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

pinned() { # PACKAGE: its version in the constraints
    sed -n "s/^$1==//p" "$constraints"
}

pip_install() { # leaves a mark where it is interrupted: pip would not see the damage
    touch "$unfinished"
    "$python" -m pip install --disable-pip-version-check \
        --constraint "$constraints" "$@"
    rm "$unfinished"
}

check_version() { # PYTHON
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
        die "$1 is not a Python 3.11, 3.12 or 3.13, which the pinned packages need." \
            "Name one for a new .venv: make PYTHON=/path/to/python3.11 ..."
}

create_venv() {
    check_version "$PYTHON"
    "$PYTHON" -c 'import ensurepip, venv' ||
        die "$PYTHON cannot create virtual environments. On Debian and Ubuntu:" \
            "apt-get install python3-venv"
    rm -rf .venv
    "$PYTHON" -m venv .venv
}

works() { # does everything import, and is mmmixmim this checkout's?
    "$python" -I - "$profile" <<'EOF'
import importlib.util
import pathlib
import sys

modules = 'torch torchvision cv2 mmengine mmcv mmpretrain mim sklearn matplotlib'
if sys.argv[1] == 'test':
    modules += ' mmcv._ext mmdet mmseg pytest ruff'
for module in modules.split():
    importlib.import_module(module)
# Found, not imported: an error in the code is no reason to install anew.
spec = importlib.util.find_spec('mmmixmim')
if not spec or not pathlib.Path('mmmixmim/__init__.py').samefile(spec.origin):
    sys.exit(f'mmmixmim of this checkout is not installed: {spec}')
EOF
}

find_ops_wheel() { # leave its path in $wheel, if there is one
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
        die "the tests need mmcv's compiled ops, and there is no C++ compiler" \
            "(${CXX:-c++}) to build them. On Debian and Ubuntu: apt-get install g++"
    [[ -e $headers/Python.h ]] ||
        die "the tests need mmcv's compiled ops, and Python.h is missing to build" \
            "them. On Debian and Ubuntu: apt-get install python3-dev"
}

build_ops_wheel() {
    local log=.wheels/build.log build
    echo "Building mmcv's compiled ops, once per torch version: 10 to 16 minutes" \
        "on 2 cores. Log: $log"
    rm -rf .wheels/build.*
    mkdir -p "$wheel_dir"
    build=$(mktemp -d .wheels/build.XXXXXX)
    # pip's cache cannot tell a wheel with ops from one without: bypass it. The ops
    # are built where pip sees torch, and for the CPU even where there is a GPU,
    # since building for CUDA takes a toolkit that matches torch's.
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
    # Under build isolation, where pip does not see torch, this builds no ops, in
    # seconds. Where mmcv is there already, with or without ops, nothing happens.
    pip_install --build-constraint "$constraints" --no-cache-dir onedl-mmcv
    if [[ $profile == test ]]; then
        install_ops
        pip_install --build-constraint "$constraints" -r requirements/det.txt \
            -r requirements/seg.txt -r requirements/test.txt
    fi
    pip_install --quiet --no-build-isolation --editable .
    # Left in the working directory it would hide the installed metadata.
    rm -rf mmmixmim.egg-info
    # opencv-python needs libGL, which bare machines lack; the headless build of the
    # same version has the same files without that need.
    "$python" -c 'import cv2' 2>/dev/null ||
        pip_install --force-reinstall --no-deps opencv-python-headless
}

[[ $profile == demo || $profile == test ]] || die 'usage: tools/setup_env.sh demo|test'
PYTHON=${PYTHON:-python3}
inputs=$(cat "$0" setup.cfg setup.py pyproject.toml requirements/*.txt | cksum)
stamp=.venv/ready-$profile
hint='everything is installed but does not work, see above. If a system library is
missing, install it (for OpenCV on Debian and Ubuntu: apt-get install libgl1
libglib2.0-0) and run this again.'

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
    echo 'The environment in .venv is damaged and is made anew.'
    create_venv
    install
    works || die "$hint"
fi
echo "$inputs" >.venv/ready-demo
echo "$inputs" >"$stamp"
