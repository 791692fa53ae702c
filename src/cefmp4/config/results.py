"""Where the results of jobs are kept. What players load is in S3_BUCKET_NAME in any case."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator

from cefmp4.config import values
from cefmp4.config.backends import RESULTS, check_known
from cefmp4.config.section import Section, setting


class StorageType(StrEnum):
    S3 = "s3"
    POSTGRES = "postgres"
    SURREALDB = "surrealdb"
    HYBRID = "hybrid"


def _known(name: str) -> str:
    name = name.strip().lower()
    check_known(name, tuple(StorageType), RESULTS)
    return name


class RowStorage(StrEnum):
    POSTGRES = "postgres"
    SURREALDB = "surrealdb"


class FileStorage(StrEnum):
    S3 = "s3"


class ResultSettings(Section):
    storage_type: Annotated[str, AfterValidator(_known)] = setting(
        StorageType.S3.value,
        "where results are kept: s3 (result.json beside the playlists), postgres or surrealdb (rows, "
        "too), or hybrid (METADATA_STORAGE and FILE_STORAGE say)",
    )
    metadata_storage: RowStorage = setting(
        RowStorage.POSTGRES, "with STORAGE_TYPE=hybrid: where rows are kept, postgres or surrealdb"
    )
    file_storage: FileStorage = setting(
        FileStorage.S3, "with STORAGE_TYPE=hybrid: where files are kept, which is s3"
    )
    aws_s3_bucket: Annotated[str, AfterValidator(values.bucket)] | None = setting(
        None, "bucket that gets a copy of each result.json; empty: none, or with S3_PREFIX ours"
    )
    aws_region: Annotated[str, AfterValidator(values.region)] | None = setting(
        None, "region of AWS_SQS_QUEUE_URL and AWS_S3_BUCKET; empty: that in the address, or S3_REGION_NAME"
    )  # fmt: skip
    s3_prefix: Annotated[str, AfterValidator(values.key_prefix)] = setting(
        "", "prefix of the copy of each result.json, as `results/`; empty, without AWS_S3_BUCKET: no copy"
    )  # fmt: skip

    @property
    def row_storage(self) -> str | None:
        """What gets rows of each result, beside S3: one of RowStorage, or of another package."""
        if self.storage_type == StorageType.HYBRID:
            return self.metadata_storage
        return None if self.storage_type == StorageType.S3 else self.storage_type
