#!/bin/bash
# Put the course on a server with The Littlest JupyterHub (TLJH 2.0 or later), for every user of it.
#
#     sudo git clone ADDRESS /srv/compresskit/course
#     sudo bash /srv/compresskit/course/deploy/tljh.sh
#
# It can be run again, after an update of the clone for example. What it does:
#   1. installs the pinned packages, hashes checked, and this package into the users' environment;
#   2. puts one copy of MNIST where every user reads it, and none can write;
#   3. tells the hub to give every server that folder, and limits of memory and of idle time;
#   4. gives each new user a copy of the notebooks, in ~/compresskit (whoever is a user already: cp -r it by hand).
# The folders can be named otherwise by the variables below.
set -euo pipefail

course=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TLJH=${TLJH:-/opt/tljh}
SHARED=${SHARED:-/srv/compresskit/data}
SKELETON=${SKELETON:-/etc/skel}
MEMORY=${MEMORY:-2G} # the server, and a kernel with a workbench that takes 0.2 GB, or 1 GB more while it trains

python=$TLJH/user/bin/python
if [ ! -x "$python" ]; then
    echo "tljh.sh: there is no $python; install The Littlest JupyterHub first, or name its folder: TLJH=/path" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; then
    echo "tljh.sh: the users' environment has another Python than 3.11, 3.12 or 3.13; TLJH 2.0 or later brings one" >&2
    exit 1
fi

"$python" -m pip install --require-hashes --requirement "$course/requirements.lock"
"$python" -m pip install --no-deps "$course"

install -d -m 755 "$SHARED"
"$python" -m compresskit.cli fetch --into "$SHARED"
chmod a-w "$SHARED"/* && chmod -R a+rX "$SHARED"

install -d -m 755 "$TLJH/config/jupyterhub_config.d"
cat >"$TLJH/config/jupyterhub_config.d/compresskit.py" <<CONFIG
# Written by deploy/tljh.sh. JupyterHub reads it when it starts.
c.Spawner.environment.update({"COMPRESSKIT_DATA": "$SHARED", "COMPRESSKIT_OFFLINE": "1", "MALLOC_ARENA_MAX": "2"})
c.Spawner.args.extend(["--LabApp.extension_manager=readonly"])
c.Spawner.default_url = "/lab/tree/compresskit/notebooks/00_start_here.ipynb"
CONFIG

rm -rf "$SKELETON/compresskit"
install -d -m 755 "$SKELETON/compresskit"
cp -r "$course/notebooks" "$course/lessons" "$SKELETON/compresskit/"

hub=$TLJH/hub/bin/tljh-config
"$hub" set limits.memory "$MEMORY"
"$hub" set services.cull.timeout 3600
"$hub" reload
echo "tljh.sh: done; a new user finds the course in ~/compresskit/notebooks"
