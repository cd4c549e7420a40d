#!/usr/bin/env bash
# The operator screen and the slices in Phoebus.
set -euo pipefail
# shellcheck source=arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/arguments.sh"

arguments "The operator screen of tomoStream, with the slices, in Phoebus. Set PHOEBUS to its start script." "$@"
if [ -z "${PHOEBUS:-}" ]; then
    PHOEBUS=$(command -v phoebus.sh || command -v phoebus || echo phoebus.sh)
fi
need "$PHOEBUS" "Set PHOEBUS to Phoebus' start script, or use start_medm.sh or start_pydm.sh."

# encoded TEXT: as it stands in a URL; Phoebus reads macros from there
encoded() {
    local LC_ALL=C text=$1 out="" i character
    for ((i = 0; i < ${#text}; i++)); do
        character=${text:i:1}
        case $character in
        [A-Za-z0-9._~:/-]) out+=$character ;;
        *) out+=$(printf '%%%02X' "'$character") ;;
        esac
    done
    echo "$out"
}

exec "$PHOEBUS" -resource "file://$(encoded "$HERE/bob/tomoStream.bob")?P=$(encoded "$P")&R=$(encoded "$R")&RECON=$(encoded "$RECON")"
