# shellcheck shell=bash
# Sourced by the start scripts: sets P, R and RECON from the command line, and HERE.

# shellcheck disable=SC2034  # read by the scripts
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# arguments PROGRAM_TEXT "$@"
arguments() {
    local about=$1
    shift
    case ${1:-} in
    -h | --help)
        cat <<EOF
$about

usage: $(basename "$0") [P [R [RECON]]]

P      first part of every PV name       (default 2bmb:)
R      second part                       (default TomoStream:)
RECON  PVA channel of the slices         (default the value of P and R, + StreamRecon)

IOCs are found by EPICS_CA_ADDR_LIST and EPICS_PVA_ADDR_LIST, as by any client.
EOF
        exit 0
        ;;
    -*)
        echo "$(basename "$0"): unknown option $1; see --help" >&2
        exit 2
        ;;
    esac
    if [ $# -gt 3 ]; then
        echo "$(basename "$0"): at most three arguments, P, R and RECON; see --help" >&2
        exit 2
    fi
    P=${1-2bmb:}
    R=${2-TomoStream:}
    # shellcheck disable=SC2034  # read by the scripts
    RECON=${3-${P}${R}StreamRecon}
}

# need PROGRAM WHERE_IT_COMES_FROM: end with a message when the program is not there
need() {
    if ! command -v "$1" >/dev/null 2>&1; then
        echo "$(basename "$0"): there is no program $1. $2" >&2
        exit 1
    fi
}
