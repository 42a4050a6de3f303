#!/usr/bin/env bash
# Check this checkout with upstream's mmengine, mmcv-lite and mmpretrain:
#   tools/check_upstream.sh [FOLDER]
# Makes a second environment in FOLDER (.venv-upstream). Everything but OpenMMLab's
# packages comes from the environment of PYTHON (.venv/bin/python), by links. Then
# trains, kills the run, resumes it, loads its checkpoint and builds the types of the
# registry; prints what works and what does not, and fails if something did not.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv-upstream}
case $folder in -*)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
    exit
    ;;
esac
python=${PYTHON:-.venv/bin/python}
site='import sysconfig; print(sysconfig.get_path("purelib"))'

"$python" -m venv --without-pip --clear "$folder"
theirs=$("$python" -c "$site")
ours=$("$folder/bin/python" -c "$site")
for path in "$theirs"/*; do
    case $(basename "$path") in
    mm* | onedl_* | __editable__* | __pycache__ | *.pth) ;;
    *) ln -s "$path" "$ours" ;;
    esac
done
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$ours" \
    mmengine==0.10.7 mmcv-lite==2.2.0 mmpretrain==1.2.0
exec env PYTHONPATH="$PWD" "$folder/bin/python" tools/check_upstream.py
