#!/usr/bin/env bash
# Install the course once for all users of a machine: environment, model and lessons, which they can read and not write.
#
#   sudo classroom/install.sh                    for The Littlest JupyterHub
#   sudo JUPYTER_PREFIX= classroom/install.sh    the environment and the model only, such as for a container
#
#   PREFIX           where all of it goes (/opt/rapidadapt)
#   PYTHON           a Python, 3.11 to 3.13 (python3)
#   TORCH            as for make (cpu)
#   JUPYTER_PREFIX   the environment that serves notebooks, whose kernel "python3" becomes the course's
#                    (/opt/tljh/user); empty for none
#   SKEL             the folder that new users' homes are copied from (/etc/skel); empty for none
#
# Safe to run again: after an update of the course, or when it was interrupted.
set -euo pipefail
umask 022

PREFIX=${PREFIX:-/opt/rapidadapt}
PYTHON=${PYTHON:-python3}
TORCH=${TORCH:-cpu}
JUPYTER_PREFIX=${JUPYTER_PREFIX-/opt/tljh/user}
SKEL=${SKEL-/etc/skel}
COURSE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [ -n "$JUPYTER_PREFIX" ] && [ ! -d "$JUPYTER_PREFIX" ]; then
    echo "There is no $JUPYTER_PREFIX. What to do: install The Littlest JupyterHub first, or name another environment" \
        "in JUPYTER_PREFIX, or leave it empty." >&2
    exit 1
fi

# The code lies beside the environment that uses it, so that the checkout can be moved or deleted.
mkdir -p "$PREFIX/course"
for name in rapidadapt_lessons scale tools pyproject.toml requirements.lock README.md; do
    rm -rf "${PREFIX:?}/course/$name"
    cp -R "$COURSE/$name" "$PREFIX/course/"
done

export RAPIDADAPT_CACHE="$PREFIX/cache"
"$PYTHON" "$PREFIX/course/tools/bootstrap.py" --torch "$TORCH" --venv "$PREFIX/env"
"$PREFIX/env/bin/python" -m compileall -q "$PREFIX/course/rapidadapt_lessons"
chmod -R u+rwX,go+rX,go-w "$PREFIX"

# The kernel says itself where the model is, whoever starts it.
if [ -n "$JUPYTER_PREFIX" ]; then
    "$PREFIX/env/bin/python" -m ipykernel install --prefix "$JUPYTER_PREFIX" --name python3 \
        --display-name "Python 3 (rapid adaptation)" --env RAPIDADAPT_CACHE "$RAPIDADAPT_CACHE"
fi

# Every new user's home gets a copy of the lessons, the scripts that lesson 11 starts, and what lessons link to; the code
# behind the lessons as a link, to be read. Nothing is taken from users who have theirs already.
if [ -n "$SKEL" ]; then
    copy="$SKEL/rapid-adaptation"
    rm -rf "${copy:?}"
    mkdir -p "$copy/docs" "$copy/benchmarks"
    cp -R "$COURSE/notebooks" "$COURSE/exercises" "$COURSE/scale" "$copy/"
    cp -R "$COURSE/docs/glossary.md" "$COURSE/docs/reproductions.md" "$COURSE/docs/badges" "$copy/docs/"
    cp "$COURSE/benchmarks/report.md" "$copy/benchmarks/"
    find "$copy" \( -name .ipynb_checkpoints -o -name __pycache__ \) -prune -exec rm -rf {} +
    ln -s "$PREFIX/course/rapidadapt_lessons" "$copy/rapidadapt_lessons"
fi
echo "Installed in $PREFIX."
