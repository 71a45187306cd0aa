#!/bin/sh
# Puts what a Hugging Face Space needs into a new folder: sh deploy/space/assemble.sh FOLDER
set -eu
folder=${1:?a folder to write}
root=$(cd "$(dirname "$0")/../.." && pwd)
test ! -e "$folder" || { echo "error: $folder exists" >&2; exit 2; }
mkdir -p "$folder"
cp "$root/deploy/space/README.md" "$root/deploy/space/Dockerfile" "$root/pyproject.toml" "$root/LICENSE" "$folder/"
cp "$root/README.md" "$folder/PROJECT.md"
cp -R "$root/src" "$folder/src"
find "$folder/src" -name __pycache__ -prune -exec rm -rf {} +
echo "ready: $folder"
