"""Swift's configuration as text. The texts that hold the secret are never written to disk."""

from collections.abc import Mapping
from pathlib import Path

from cefmp4.model.part import MAX_PARTS

ACCOUNT = "cefmp4"  # where all data lies; the user and its secret may change, this may not
DEVICE = "d1"
BACKENDS = ("account", "container", "object")

# A constant of the data on disk: with another suffix Swift would look for it elsewhere.
SWIFT_CONF = """\
[swift-hash]
swift_hash_path_suffix = cefmp4
[storage-policy:0]
name = one
default = yes
"""

# 1 MiB at a time instead of 64 KiB: a sixteenth of the turns through the event loop per part.
_CHUNK_BYTES = 1024 * 1024


# Relative to the data folder, where the process works: a path that its user chose needs no quoting
# then, and the path of a socket stays under the 107 bytes that it may have.
RINGS = Path("rings")
DEVICES = Path("devices")
SOCKETS = Path("sockets")

_COMMON = f"""\
[DEFAULT]
swift_dir = {RINGS}
devices = {DEVICES}
mount_check = false
disable_fallocate = true
log_level = WARNING
log_requests = false
"""


def backend_conf(kind: str) -> str:
    # The update of the container listing belongs to the answer: with Swift's one second a busy
    # machine would answer "stored" for a part that ListParts does not show yet, and nothing here
    # would repeat the update later.
    return f"""{_COMMON}
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
disk_chunk_size = {_CHUNK_BYTES}
network_chunk_size = {_CHUNK_BYTES}
container_update_timeout = 30
node_timeout = 30
conn_timeout = 10
"""


def proxy_conf(keys: Mapping[str, str], *, region: str, min_part_bytes: int) -> str:
    account, _, user = keys["s3_access_key_id"].partition(":")
    return f"""{_COMMON}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck space cache listing_formats s3api tempauth bulk slo \
proxy-server
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:space]
paste.filter_factory = cefmp4.embedded.swift_filters:space
[filter:cache]
paste.filter_factory = cefmp4.embedded.swift_filters:cache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = {_literal(region)}
max_upload_part_num = {MAX_PARTS}
min_segment_size = {min_part_bytes}
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{user} = {_literal(keys["s3_secret_access_key"])} .admin
[filter:bulk]
use = egg:swift#bulk
max_deletes_per_request = {2 * MAX_PARTS}
delete_concurrency = 4
[filter:slo]
use = egg:swift#slo
max_manifest_segments = {MAX_PARTS}
# Later deletes need a daemon that does not run here: the space would never come back.
allow_async_delete = false
# By default a GET sends one part a second after the tenth.
rate_limit_after_segment = 1000000
rate_limit_segments_per_sec = 1000000
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
object_chunk_size = {_CHUNK_BYTES}
client_chunk_size = {_CHUNK_BYTES}
node_timeout = 60
conn_timeout = 10
# There is one device. To leave it out for a minute after errors is to be down for a minute; and one
# answer that its disk is full would do that at once, whatever the limit.
error_suppression_limit = 1000000000
error_suppression_interval = 0
"""


def _literal(value: str) -> str:
    if "\n" in value or "\r" in value or "%(" in value:
        raise ValueError("a line break or %( cannot be part of a Swift setting")
    return value
