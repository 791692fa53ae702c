"""Whether the database can hold vectors, which pgvector adds. Nothing is installed here."""

from enum import StrEnum

from cefmp4.storage.postgres.link import Postgres


class Vectors(StrEnum):
    INSTALLED = "installed"
    OFFERED = "offered"  # CREATE EXTENSION vector would work
    FORBIDDEN = "forbidden"  # only an administrator can say that
    ABSENT = "absent"  # the server does not have it


_LOOK = """
SELECT e.installed_version IS NOT NULL AS is_installed,
       r.rolsuper OR (v.trusted AND has_database_privilege(current_database(), 'CREATE')) AS may
FROM pg_available_extensions e
JOIN pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version
JOIN pg_roles r ON r.rolname = current_user
WHERE e.name = 'vector'
"""


async def look_for_vectors(postgres: Postgres) -> Vectors:
    rows = await postgres.fetch(_LOOK)
    if not rows:
        return Vectors.ABSENT
    if rows[0]["is_installed"]:
        return Vectors.INSTALLED
    return Vectors.OFFERED if rows[0]["may"] else Vectors.FORBIDDEN


async def has_vector(postgres: Postgres) -> bool:
    """There, or to be had."""
    return await look_for_vectors(postgres) in (Vectors.INSTALLED, Vectors.OFFERED)
