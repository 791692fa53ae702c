# To be sourced, after log.sh, in the project's folder.

# fetch_pinned NAME VERSION SHA512 FOLDER [PACKAGE]: the package from npm, unpacked into
# FOLDER/package, but no other tarball than the one with that hash, which npm shows, in base64, as
# dist.integrity. PACKAGE: its name where npm calls the tarball by another one, as it does of @a/b.
fetch_pinned() {
    local tarball=$4/$1-$2.tgz
    need_npm &&
        logged npm pack --silent --pack-destination "$4" "${5:-$1}@$2" &&
        has_hash "$tarball" "$3" &&
        logged tar -xzf "$tarball" -C "$4"
}

has_hash() {
    [ "$(sha512sum <"$1" | cut -d' ' -f1)" = "$2" ] ||
        logged bash -c 'echo "$0 has another hash than is pinned"; false' "${1##*/}"
}

# Puts npm and node on the PATH: those of the machine, else those of a wheel in .venv.
need_npm() {
    export NODE_USE_SYSTEM_CA=1 # trust whom this machine trusts, as pip and apt-get do
    command -v npm >/dev/null && command -v node >/dev/null && return
    if [ ! -x .venv/bin/npm ]; then
        say "installing Node.js into .venv"
        logged scripts/locked .venv node || return
    fi
    PATH=$PWD/.venv/bin:$PATH
}
