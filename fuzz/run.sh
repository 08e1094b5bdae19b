#!/bin/bash
# Builds the fuzz targets and runs each for so many seconds: fuzz/run.sh SECONDS [TARGET...]
#
# What a target finds beyond fuzz/corpus stays in target/fuzz, so that the next run goes on from there. An input that fails lies in
# target/fuzz/artifacts; PHEON_FUZZ_VERBOSE=1 with it as the only argument of the target's program shows where.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "skipped: fuzzing needs a nightly toolchain (rustup toolchain install nightly)" >&2
    exit 0
fi
if ! cargo fuzz --version >/dev/null 2>&1 && [ ! -x target/tools/bin/cargo-fuzz ]; then
    CARGO_PROFILE_DEV_DEBUG=false cargo install --debug --quiet --locked cargo-fuzz --root target/tools
fi
PATH="$PWD/target/tools/bin:$PATH"
scratch=$(mktemp -d /dev/shm/pheon-fuzz.XXXXXX 2>/dev/null || mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TMPDIR="$scratch"
cargo +nightly fuzz build --target-dir target/fuzz
failed=()
for target in ${@:-$(cargo +nightly fuzz list)}; do
    mkdir -p "target/fuzz/corpus/$target" "target/fuzz/artifacts/$target" "fuzz/corpus/$target"
    log="target/fuzz/$target.log"
    echo "== $target"
    # Targets of live maps write a sound file there, to begin with.
    export PHEON_FUZZ_SEED="$PWD/target/fuzz/corpus/$target/sound"
    if ! cargo +nightly fuzz run --target-dir target/fuzz "$target" "target/fuzz/corpus/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=16384 -print_final_stats=1 \
        -artifact_prefix="target/fuzz/artifacts/$target/" >"$log" 2>&1; then
        failed+=("$target")
        grep -vE '^#[0-9]' "$log" | tail -40
    fi
    grep -E 'stat::number_of_executed_units|stat::new_units_added|DONE' "$log" || true
    rm -rf "${scratch:?}"/*
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
