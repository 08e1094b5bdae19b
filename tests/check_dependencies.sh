#!/usr/bin/env bash
# Licences, sources and bans always; advisories where their database can be fetched. A vulnerable dependency fails, an unreachable
# database is said aloud and does not.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo deny --all-features check bans licenses sources
if cargo deny fetch >/dev/null 2>&1; then
    cargo deny --all-features check advisories
else
    echo "advisories: NOT CHECKED, their database cannot be fetched from here" >&2
fi
