"""A real S3 server in one process: OpenStack Swift with its S3 API, bound to loopback.

Run as a child process, because eventlet replaces the blocking calls of the whole process."""

import argparse
import json
import os
import warnings
from pathlib import Path

from cefmp4.embedded.lifetime import die_with_parent
from cefmp4.embedded.swift_config import SwiftOptions


def main() -> None:
    options, parent = _arguments()
    die_with_parent(parent)
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"  # no name is ever resolved; saves start-up time
    # It tells maintainers to move away from eventlet; Swift has not.
    warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

    import eventlet

    eventlet.hubs.use_hub("poll")  # Swift's choice too; its comments tell of epoll losing events
    eventlet.monkey_patch()

    from cefmp4.embedded.swift_serve import serve  # after the patch, with all of Swift

    serve(options)


def _arguments() -> tuple[SwiftOptions, int]:
    parser = argparse.ArgumentParser(prog="cefmp4.embedded.swift_server")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--listener", type=int, required=True, help="descriptor of the open port")
    parser.add_argument("--credentials", type=Path, required=True, help="JSON file, mode 0600")
    parser.add_argument("--region", required=True)
    parser.add_argument("--min-part-bytes", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="process id to die with")
    given = parser.parse_args()
    keys = json.loads(given.credentials.read_text())
    options = SwiftOptions(
        data=given.data,
        listener=given.listener,
        access_key=keys["s3_access_key_id"],
        secret_key=keys["s3_secret_access_key"],
        region=given.region,
        min_part_bytes=given.min_part_bytes,
    )
    return options, given.parent


if __name__ == "__main__":
    main()
