# To be sourced, after log.sh, in the project's folder: `need_npm` puts npm and node on the PATH,
# those of the machine, else those of a wheel in .venv.
need_npm() {
    export NODE_USE_SYSTEM_CA=1 # trust whom this machine trusts, as pip and apt-get do
    command -v npm >/dev/null && command -v node >/dev/null && return
    if [ ! -x .venv/bin/npm ]; then
        say "installing Node.js into .venv"
        logged scripts/locked .venv node || return
    fi
    PATH=$PWD/.venv/bin:$PATH
}
