# To be sourced: one line for people, everything else into a file.
setup_log=build/setup.log

say() {
    printf '==> %s\n' "$*" >&2
}

logged() {
    mkdir -p "${setup_log%/*}"
    printf '+ %s\n' "$*" >>"$setup_log"
    "$@" >>"$setup_log" 2>&1 </dev/null
}

# The last lines of the log, without the addresses that package tools print (they may hold keys).
show_log() {
    say "it failed; the last lines of $setup_log:"
    tail -n 20 "$setup_log" | sed -E "s#(https?://|'|host=)[^ /']*\.[^ ']*#\1...#g" >&2
}
