#!/usr/bin/env bash
# Other servers, each in a virtual environment of its own under the folder given (a few GB in all).
#
#     bench/peers/install.sh FOLDER MODEL_FOLDER
#
# What cannot be installed is said and left out; against_peers.py then leaves it out too.
set -uo pipefail
folder=${1:?folder for the virtual environments}
model=${2:?folder of all-minilm, as sentence-transformers saves it}
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

if [ -d "$folder/infinity" ]; then # infinity's other engine wants the model as ONNX
    "$folder/infinity/bin/optimum-cli" export onnx --model "$model" --task feature-extraction --library transformers \
        "$folder/onnx" || rm -rf "${folder:?}/onnx"
fi
