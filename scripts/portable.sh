# shellcheck shell=bash
# Sourced by scripts that build what is given away: cargo then builds for this machine's architecture, links against glibc 2.28
# (the system's own linker would ask for the system's own glibc), and shares what it compiles between program and wheel, in
# target/ARCHITECTURE-unknown-linux-gnu. The linker is zig's, called as maturin calls it; both come from PyPI, into $tools.
tools=target/python/tools
python=${PYTHON:-python3}
[ -x "$tools/bin/maturin" ] || { "$python" -m venv "$tools" && "$tools/bin/pip" install --quiet 'maturin>=1.9,<2' ziglang auditwheel; }

CARGO_BUILD_TARGET=$(rustc -vV | sed -n 's/^host: //p')
linker=$PWD/$tools/linker
text="#!/bin/sh
PATH='$PWD/$tools/bin':\$PATH exec '$PWD/$tools/bin/maturin' zig cc -- -g -fno-sanitize=all -target ${CARGO_BUILD_TARGET%%-*}-linux-gnu.2.28 \"\$@\""
# The same file is not written again: cargo would take it for another linker.
[ "$(cat "$linker" 2> /dev/null)" = "$text" ] || { echo "$text" > "$linker" && chmod +x "$linker"; }
export CARGO_BUILD_TARGET
export "CARGO_TARGET_$(tr a-z- A-Z_ <<< "$CARGO_BUILD_TARGET")_LINKER=$linker"
