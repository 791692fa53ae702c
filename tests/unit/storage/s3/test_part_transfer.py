import io

from cefmp4.model.object import FileRange
from cefmp4.storage.s3.part_transfer import RangeFile

OFFSET = 777


def test_the_range_as_a_file(fd: int, data: bytes) -> None:
    body = RangeFile(FileRange(fd, OFFSET, 5000))
    wanted = data[OFFSET : OFFSET + 5000]
    assert len(body) == 5000
    assert body.read() == wanted
    assert body.read(1) == b""
    assert body.seek(-10, io.SEEK_END) == 4990
    assert body.read(100) == wanted[-10:]
    body.seek(7)
    assert body.read(3) == wanted[7:10]
    assert body.tell() == 10
