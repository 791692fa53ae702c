"""The strings of a CODECS attribute, from the records inside an init segment. Pure."""


def avc_codec_string(kind: str, record: memoryview) -> str:
    """`record`: an avcC box. Profile, constraints and level are its bytes 1 to 3."""
    return f"{kind}.{record[1]:02X}{record[2]:02X}{record[3]:02X}"


def hevc_codec_string(kind: str, record: memoryview) -> str:
    """`record`: an hvcC box. Spelled as ISO/IEC 14496-15 annex E says."""
    space = ("", "A", "B", "C")[record[1] >> 6]
    tier = "H" if record[1] & 0x20 else "L"
    compatibility = int(f"{int.from_bytes(record[2:6], 'big'):032b}"[::-1], 2)
    constraints = bytes(record[6:12]).rstrip(b"\0")
    parts = [
        kind,
        f"{space}{record[1] & 0x1F}",
        f"{compatibility:X}",
        f"{tier}{record[12]}",
        *(f"{byte:X}" for byte in constraints),
    ]
    return ".".join(parts)


def audio_codec_string(esds: memoryview) -> tuple[str, int]:
    """`mp4a.40.2` or one of its kin, and the number of channels, which the box around it does not
    tell truly."""
    decoder = _descriptor(_descriptor(esds[4:], 0x03)[3:], 0x04)
    specific = _descriptor(decoder[13:], 0x05)
    object_type = specific[0] >> 3
    if object_type == 31:
        object_type = 32 + ((specific[0] & 7) << 3 | specific[1] >> 5)
        return f"mp4a.{decoder[0]:02x}.{object_type}", 0
    return f"mp4a.{decoder[0]:02x}.{object_type}", specific[1] >> 3 & 0xF


def _descriptor(data: memoryview, tag: int) -> memoryview:
    """The content of the first descriptor with that tag; its length is in groups of 7 bits."""
    at = 0
    while at < len(data):
        found, length, at = data[at], 0, at + 1
        while True:
            byte = data[at]
            at += 1
            length = length << 7 | byte & 0x7F
            if not byte & 0x80:
                break
        if found == tag:
            return data[at : at + length]
        at += length
    raise IndexError(f"no descriptor {tag}")
