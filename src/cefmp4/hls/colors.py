"""What the numbers of a picture mean. Where nothing tells, they mean what pictures of that size are
made as; and what is decided here is written into every rendition, so that no player has to guess.
Pure."""

from fractions import Fraction

Colors = tuple[str, str, str]  # primaries, transfer, matrix: as ffmpeg spells them

BT709: Colors = ("bt709", "bt709", "bt709")
_BT601_525: Colors = ("smpte170m", "smpte170m", "smpte170m")
_BT601_625: Colors = ("bt470bg", "smpte170m", "bt470bg")
_BT2020: Colors = ("bt2020", "bt2020-10", "bt2020nc")
_BY_PRIMARIES = {
    "bt709": BT709,
    "smpte170m": _BT601_525,
    "bt470bg": _BT601_625,
    "bt2020": _BT2020,
}
_BY_MATRIX = {colors[2]: colors for colors in _BY_PRIMARIES.values()}
# Others are taken for unknown: a filter that is told a name it does not know refuses all.
_PRIMARIES = frozenset(
    {
        *("bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "film", "bt2020"),
        *("smpte428", "smpte431", "smpte432"),
    }
)
_TRANSFERS = frozenset(
    {
        *("bt709", "bt470m", "bt470bg", "smpte170m", "smpte240m", "linear", "iec61966-2-1"),
        *("iec61966-2-4", "bt2020-10", "bt2020-12", "smpte2084", "arib-std-b67"),
    }
)
_MATRICES = frozenset(
    {"bt709", "fcc", "bt470bg", "smpte170m", "smpte240m", "ycgco", "bt2020nc", "bt2020c"}
)
_RGB_FORMATS = ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "x2rgb", "x2bgr", "pal8")
_HD_LONG_SIDE, _SD_SHORT_SIDE = 1280, 576
_FRAME_RATES_625 = frozenset({Fraction(25), Fraction(50)})


def is_rgb(pix_fmt: str) -> bool:
    return pix_fmt.startswith(_RGB_FORMATS)


def is_sd(width: int, height: int) -> bool:
    return max(width, height) < _HD_LONG_SIDE and min(width, height) <= _SD_SHORT_SIDE


def meant(told: Colors, *, width: int, height: int, frame_rate: Fraction, hdr: bool) -> Colors:
    """All three, of which the source may tell some."""
    primaries = told[0] if told[0] in _PRIMARIES else ""
    transfer = told[1] if told[1] in _TRANSFERS else ""
    matrix = told[2] if told[2] in _MATRICES else ""
    usual = _BT2020 if hdr else _usual(width, height, frame_rate)
    usual = _BY_MATRIX.get(matrix) or _BY_PRIMARIES.get(primaries) or usual
    return primaries or usual[0], transfer or usual[1], matrix or usual[2]


def is_told(told: Colors) -> bool:
    return told[2] in _MATRICES


def _usual(width: int, height: int, frame_rate: Fraction) -> Colors:
    if not is_sd(width, height):
        return BT709
    is_625 = min(width, height) == _SD_SHORT_SIDE or frame_rate in _FRAME_RATES_625
    return _BT601_625 if is_625 else _BT601_525
