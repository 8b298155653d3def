# shellcheck shell=bash
# Sourced. `cargo_tool deny 0.20.2` sees to it that `cargo deny` runs: cargo's own, or that version, installed into target/tools (built
# quickly: what it does takes seconds).
cargo_tool() {
    cargo "$1" --version > /dev/null 2>&1 && return
    PATH="$PWD/target/tools/bin:$PATH"
    cargo "$1" --version 2> /dev/null | grep -q "$2" ||
        cargo install --quiet --locked --debug --root target/tools --version "$2" "cargo-$1"
}
