#!/usr/bin/env bash
# The operator screen in PyDM: the MEDM screens, converted anew at each start.
set -euo pipefail
# shellcheck source=arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

arguments "The operator screen of tomoStream in PyDM. Set PYTHON and PYDM to use other programs." "$@"
PYTHON=${PYTHON:-python3}
PYDM=${PYDM:-pydm}
need "$PYTHON" "Set PYTHON to the one that adl2pydm is installed for."
need "$PYDM" "pip install pydm adl2pydm PyQt5, or use start_medm.sh or start_phoebus.sh."

FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
"$PYTHON" "$HERE/adl_to_ui.py" "$FOLDER"
export PYDM_DISPLAYS_PATH="$FOLDER${PYDM_DISPLAYS_PATH:+:$PYDM_DISPLAYS_PATH}"
"$PYDM" --hide-nav-bar -m "P=$P,R=$R" "$FOLDER/tomoStream.ui"
