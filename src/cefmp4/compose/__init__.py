"""What docker-compose.yml runs beside our commands: it prepares keys and volumes, makes the bucket,
and hands ports on. Nobody types these."""

from pathlib import Path

KEYS = Path("/run/cefmp4")
WEAK = KEYS / "weak"  # why the servers must not be published, a line each
