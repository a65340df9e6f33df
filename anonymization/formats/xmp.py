"""XMP: an allowlist of namespaces, rewritten.

Projection (GPano), camera poses, rights and descriptions stay. Thumbnails, depth maps, gain maps,
motion photos, extended XMP and every namespace that is not listed go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from anonymization.formats.text import has_code_word, is_cut_code, is_text

MAX_BYTES = 65502
"""One JPEG marker less XMP's name; longer XMP is extended XMP, which carries pictures."""

READ_MAX_BYTES = 2**20
"""Longer XMP is not looked at."""

_DEPTH_MAX = 16
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"
_XML = "http://www.w3.org/XML/1998/namespace"

NAMESPACES = {
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "GSpherical": "http://ns.google.com/videos/1.0/spherical/",
    "Camera": "http://pix4d.com/camera/1.0",
    "Camera1": "http://pix4d.com/camera/1.0/",
    "MicaSense": "http://micasense.com/MicaSense/1.0/",
    "drone-dji": "http://www.dji.com/drone-dji/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "stRef": "http://ns.adobe.com/xap/1.0/sType/ResourceRef#",
    "stEvt": "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "cc": "http://creativecommons.org/ns#",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
}
"""What stays, by the prefix under which it is written: the usual one, by which some readers go."""

_SAME_PREFIX = {"Camera1": "Camera"}
"""Cameras end Pix4D's address with a slash or not, and call both `Camera`."""

_SYNTAX = {
    _RDF: frozenset(
        [
            "RDF",
            "Description",
            "Bag",
            "Seq",
            "Alt",
            "li",
            "value",
            "type",
            "about",
            "resource",
            "parseType",
            "ID",
            "nodeID",
        ]
    ),
    _XML: frozenset(("lang", "space")),
}
"""All names of RDF and XML that XMP uses (ISO 16684-1, section 7)."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{,39}")
"""The standards' longest name has 35 letters; whole pictures fit into one without a bound."""

_GOES = {"Thumbnails", "MakerNote", "OECF", "SpatialFrequencyResponse", "DeviceSettingDescription"}
_PLACE = re.compile(
    r"gps|latitude|longitude|altitude|location|city|country|state|sublocation|place|address|geo|coverage|region|ciadr|postal|pcode"
    r"|(?:lat|lon|alt)$",  # DJI's range finder: LRFTargetLat
    re.IGNORECASE,
)

_KNOWN = frozenset(NAMESPACES.values())

_PREFIXES = {uri: prefix for prefix, uri in {**NAMESPACES, "rdf": _RDF, "x": _META}.items()}


def clean_xmp(xmp: bytes, *, position: bool = True) -> bytes:
    """Return XMP with nothing but known properties of text; empty where none is left.

    Args:
        xmp: A packet as a file holds it.
        position: Keep properties that say where the picture was taken.
    """
    root = _parsed(xmp)
    rdf = None if root is None else next(root.iter(f"{{{_RDF}}}RDF"), None)
    if rdf is None:
        return b""
    kept = _kept(rdf, position=position)
    if is_cut_code(_texts(kept)):
        kept = _kept(rdf, position=position, words=False)
    if not len(kept) or not is_text(" ".join(_names(kept)).encode()):
        return b""
    meta = ElementTree.Element(f"{{{_META}}}xmpmeta")
    meta.append(kept)
    packet = (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        + ElementTree.tostring(_prefixed(meta), encoding="utf-8", xml_declaration=False)
        + b'<?xpacket end="w"?>'
    )
    return packet if len(packet) <= MAX_BYTES else b""


def _prefixed(root: ElementTree.Element) -> ElementTree.Element:
    """Write the names of a tree with prefixes, which its root declares; return the root."""
    used = {name[1:].partition("}")[0] for each in root.iter() for name in (each.tag, *each.attrib)}
    prefixes = {uri: prefix for uri, prefix in _PREFIXES.items() if uri in used}
    for uri, prefix in prefixes.items():
        usual = _SAME_PREFIX.get(prefix, prefix)
        if usual not in prefixes.values():
            prefixes[uri] = usual

    def written(name: str) -> str:
        uri, _, local = name[1:].rpartition("}")
        return f"{'xml' if uri == _XML else prefixes[uri]}:{local}" if uri else name

    for each in root.iter():
        each.tag = written(each.tag)
        each.attrib = {written(name): value for name, value in each.attrib.items()}
    for uri, prefix in prefixes.items():
        root.set(f"xmlns:{prefix}", uri)
    return root


def _parsed(xmp: bytes) -> ElementTree.Element | None:
    """Parse XMP that declares no entities, with which a few bytes become gigabytes."""
    if not 0 < len(xmp) <= READ_MAX_BYTES or b"<!" in re.sub(rb"<!--", b"", xmp) or b"\x00" in xmp:
        return None
    try:
        return ElementTree.fromstring(xmp.strip())  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError):
        return None


def _kept(rdf: ElementTree.Element, *, position: bool, words: bool = True) -> ElementTree.Element:
    """Return what stays of a packet's descriptions."""
    kept = ElementTree.Element(f"{{{_RDF}}}RDF")
    for description in rdf.findall(f"{{{_RDF}}}Description"):
        copied = _copied(description, position=position, words=words, depth=0)
        if copied is not None and (len(copied) or any(_RDF not in name for name in copied.attrib)):
            kept.append(copied)
    return kept


def _copied(
    element: ElementTree.Element, *, position: bool, words: bool, depth: int
) -> ElementTree.Element | None:
    """Copy an element without what is not known; None where it goes whole.

    `words` tells whether values with words as long as those of code stay.
    """
    if depth > _DEPTH_MAX or not _is_known(element.tag, position=position):
        return None
    copied = ElementTree.Element(element.tag)
    for name, value in element.attrib.items():
        if _is_known(name, position=position) and _stays(value, words=words):
            copied.set(name, value)
    text = element.text or ""
    if len(element) == 0 and text.strip():
        if not _stays(text, words=words):
            return None
        copied.text = text
    for child in element:
        if (inner := _copied(child, position=position, words=words, depth=depth + 1)) is not None:
            copied.append(inner)
    emptied = len(element) > 0 and len(copied) == 0 and not copied.attrib
    return None if emptied else copied


def _stays(value: str, *, words: bool) -> bool:
    return is_text(value.encode()) and (words or not has_code_word(value))


def _texts(element: ElementTree.Element) -> Iterator[str]:
    """Yield all values of a packet: what each alone hides from `is_text` may be cut to pieces."""
    for each in element.iter():
        yield from each.attrib.values()
        yield each.text or ""


def _names(element: ElementTree.Element) -> Iterator[str]:
    """Yield the names of a packet, each once: they may spell as much as values do."""
    names = (name for each in element.iter() for name in (each.tag, *each.attrib))
    for name in dict.fromkeys(names):
        yield name.rpartition("}")[2]


def _is_known(name: str, *, position: bool) -> bool:
    uri, _, local = name[1:].rpartition("}") if name.startswith("{") else ("", "", name)
    if uri in _SYNTAX:
        return local in _SYNTAX[uri]
    if uri not in _KNOWN or local in _GOES or not _NAME.fullmatch(local):
        return False
    return position or not tells_place(local)


def tells_place(name: str) -> bool:
    """Tell whether a property of this name says where a picture was taken, or somebody lives."""
    return bool(_PLACE.search(name))
