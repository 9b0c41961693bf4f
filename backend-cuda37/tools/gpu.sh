#!/bin/sh
# Builds and runs everything on a machine with a CUDA card, and prints what it finds: conformance of every operation and type,
# golden models, speeds of models in known shapes and their share of the card's memory bandwidth, several logical devices,
# and compute-sanitizer's word on the kernels. Arguments: the folder for results [target/gpu].
#
#     backend-cuda37/tools/gpu.sh [FOLDER]
#
# Needs a Rust toolchain and a driver; compute-sanitizer, of the CUDA toolkit, is used where it is found.
set -u
[ "${1:-}" = --help ] && sed -n '2,8s/^# \{0,1\}//p' "$0" && exit 0
cd "$(dirname "$0")/../.." || exit 1
results=${1:-target/gpu}
models=$results/models
mkdir -p "$models" || exit 1
failed=0

# Runs a command under a title; its output goes to the terminal and to a file of the results.
step() {
    name=$1
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    { "$@" 2>&1; echo $? > "$results/status"; } | tee "$results/$name.txt"
    status=$(cat "$results/status")
    [ "$status" = 0 ] || { failed=$((failed + 1)); echo "== $name failed: $status"; }
}

host=target/release/host
plugin=target/release/libbackend_cuda37.so
cuda() { "$host" "$@" --backend cuda37 --no-fallback --plugins target/release; }

step card nvidia-smi
step build cargo build --release -p host -p backend-cuda37 -p tests --bins --lib
step backends "$host" backends --plugins target/release
step conformance "$host" check "$plugin"

for fixture in tests/fixtures/*.gguf; do
    name=$(basename "$fixture" .gguf)
    step "golden-$name" cuda run "$fixture" --raw --temperature 0 --predict 16 "Once upon a time"
done

# decode and prefill, with the share of the bandwidth that `host bench` measures on this card
for shape in qwen2-1.5b:q4_k_m qwen2-7b:q4_k_m gpt-oss-20b:mxfp4; do
    file=$models/$(echo "$shape" | tr : -).gguf
    [ -e "$file" ] || step "make-$shape" target/release/make-model "${shape%%:*}" "$file" --quant "${shape##*:}"
    step "bench-$shape" cuda bench "$file"
    for devices in 2x11441MiB 4x11441MiB; do
        step "logical-$devices-$shape" cuda bench "$file" --devices "cuda37:$devices" --ctx-size 4096
    done
done

if command -v compute-sanitizer > /dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do
        step "sanitizer-$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 "$host" check "$plugin"
    done
else
    echo "compute-sanitizer was not found: the kernels were not run under it"
fi

printf '\n%s steps failed; what they printed is in %s\n' "$failed" "$results"
[ "$failed" = 0 ]
