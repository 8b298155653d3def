#!/usr/bin/env bash
# The rules of examples/cluster/Snakefile, run by Snakemake from PyPI: three shards of the embedded heads and their summary; a second
# run finds nothing to do. Ends with 77 where Snakemake cannot be had.
#
#   scripts/check_snakemake.sh target/release/ossnet
set -euo pipefail
ossnet=$(realpath "$1")
cd "$(dirname "$0")/.."

venv=target/snakemake
if [ ! -x "$venv/bin/snakemake" ]; then
    python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check 'snakemake>=9,<10' || {
        echo "check_snakemake.sh: no Snakemake here, and none could be installed from PyPI: SKIPPED"
        exit 77
    }
fi
venv=$(realpath "$venv")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp examples/cluster/Snakefile "$work"
cp -r assets/sample/heads/imagesTr "$work/scans"
cd "$work"
"$ossnet" train --quiet --preset sample --model o-net-small --epochs 1 --points 64 --threads 1 --out net > /dev/null
run() {
    "$venv/bin/snakemake" --quiet --cores 2 --keep-going "$@" \
        --config model=net/o-net-small.safetensors scans=scans out=out shards=3 ossnet="$ossnet"
}
run
scans=$(find scans -name '*.nii.gz' | wc -l)
made=$(find out -name '*.nii.gz' | wc -l)
told=$(python3 -c 'import json; print(len(json.load(open("out/inference.json"))["cases"]))')
[ "$scans" -gt 1 ] && [ "$scans" = "$made" ] && [ "$scans" = "$told" ] || {
    echo "check_snakemake.sh: $scans scans, $made segmentations, $told of them in inference.json"
    exit 1
}
again=$(run --dry-run 2>&1)
grep -q 'Nothing to be done' <<< "$again" || { echo "check_snakemake.sh: a second run would do something: $again"; exit 1; }
echo "Snakefile: $scans scans in three shards, merged"
