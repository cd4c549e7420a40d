#!/usr/bin/env bash
# The operator screen in MEDM.
set -euo pipefail
# shellcheck source=arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

arguments "The operator screen of tomoStream in MEDM. Set MEDM to use another program." "$@"
MEDM=${MEDM:-medm}
need "$MEDM" "MEDM comes with the EPICS extensions; set MEDM to its path, or use start_phoebus.sh or start_pydm.sh."

export EPICS_DISPLAY_PATH="$HERE/adl${EPICS_DISPLAY_PATH:+:$EPICS_DISPLAY_PATH}"
exec "$MEDM" -x -macro "P=$P,R=$R" "$HERE/adl/tomoStream.adl"
