"""Writes build/sbom.cdx.json, what the image is made of, and validates it: `make sbom`. It reads
an environment that holds locks/runtime.txt and nothing else, and adds hls.js."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator

ROOT = Path(__file__).parent.parent
WRITTEN = ROOT / "build" / "sbom.cdx.json"


def packages() -> dict[str, Any]:
    # fmt: off
    done = subprocess.run(
        [ROOT / ".venv-tools/bin/cyclonedx-py", "environment", "--pyproject", "pyproject.toml",
         "--output-reproducible", "--spec-version", "1.6", ".venv-runtime/bin/python"],
        cwd=ROOT, check=True, capture_output=True,
    )
    # fmt: on
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def player() -> dict[str, Any]:
    """hls.js as scripts/player pins it."""
    script = (ROOT / "scripts" / "player").read_text()
    (name, version), *_ = re.findall(r"^tool=(\S+) version=(\S+)$", script, re.MULTILINE)
    sha512 = "".join(re.findall(r"^sha512\+?=([0-9a-f]+)$", script, re.MULTILINE))
    purl = f"pkg:npm/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "hashes": [{"alg": "SHA-512", "content": sha512}],
    }


def main() -> int:
    sbom = packages()
    ours = sbom["metadata"]["component"]["bom-ref"]
    theirs = player()
    sbom["components"].append(theirs)
    (needs,) = (entry for entry in sbom["dependencies"] if entry["ref"] == ours)
    needs["dependsOn"].append(theirs["bom-ref"])
    sbom["dependencies"].append({"ref": theirs["bom-ref"]})
    text = json.dumps(sbom, indent=2)
    wrong = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6).validate_str(text)
    if wrong:
        print(f"not CycloneDX: {wrong}", file=sys.stderr)
        return 1
    WRITTEN.parent.mkdir(exist_ok=True)
    WRITTEN.write_text(f"{text}\n")
    print(f"{WRITTEN.relative_to(ROOT)}: {len(sbom['components'])} components")
    return 0


if __name__ == "__main__":
    sys.exit(main())
