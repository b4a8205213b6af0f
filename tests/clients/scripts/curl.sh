#!/bin/sh
# usage: curl.sh URL TEXTS, TEXTS a JSON list. Prints what the other scripts print.
set -eu
first=$(printf '%s' "$2" | sed 's/^\["\([^"]*\)".*/\1/')
one=$(curl -sS "$1/api/embed" -d "{\"model\": \"all-minilm\", \"input\": \"$first\"}" | sed 's/.*"embeddings":\[\(\[[^]]*\]\)\].*/\1/')
many=$(curl -sS "$1/api/embed" -d "{\"model\": \"all-minilm\", \"input\": $2}" | sed 's/.*"embeddings":\(\[\[.*\]\]\).*/\1/')
error=$(curl -sS "$1/api/embed" -d '{"model": "nope", "input": "a"}' | sed 's/^{"error"://; s/}$//')
printf '{"one": %s, "many": %s, "error": %s}\n' "$one" "$many" "$error"
