#!/usr/bin/env bash
# Other servers, each in a virtual environment of its own under the folder given (a few GB in all).
#
#     bench/peers/install.sh FOLDER
#
# What cannot be installed is said and left out; against_peers.py then leaves it out too.
set -uo pipefail
folder=${1:?folder for the virtual environments}
torch=torch==2.13.0 # a CPU build where that is what the index has; any that the packages accept will do

environment() { # NAME PACKAGE...
    local name=$1
    shift
    echo "== $name: $*"
    if ! { python3 -m venv "$folder/$name" && "$folder/$name/bin/pip" install --quiet "$@"; }; then
        echo "$name cannot be installed here" >&2
        rm -rf "${folder:?}/$name"
    fi
}

mkdir -p "$folder"
environment infinity "$torch" 'infinity-emb[server,torch,optimum]'
environment fastapi "$torch" 'sentence-transformers>=5' fastapi uvicorn
environment llamacpp xllamacpp
