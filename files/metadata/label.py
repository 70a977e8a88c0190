"""The label of AI-generated content (GB 45438-2025) as text, and the XMP packet that holds it."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from xml.parsers import expat

# Texts by keyword, and the fields of a label by name.
Texts = Mapping[str, str]
# It declares its namespaces itself, so that it can be inserted into any packet.
XMP_DESCRIPTION = (
    '<rdf:Description rdf:about="" xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    ' xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"><TC260:AIGC>{}</TC260:AIGC>'
    "</rdf:Description>"
)
XMP_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{}</rdf:RDF>'
    '</x:xmpmeta><?xpacket end="w"?>'
)


class XmpPacket:
    """An XMP packet: the texts in it that may be a label, and where a description can be added.

    The namespace prefixes are not resolved: some writers do not declare those that they use.
    """

    def __init__(self, data: bytes):
        self.data = data.rstrip(b"\0")
        self.labels: list[str] = []
        # The position before the end tag of rdf:RDF; None if there is none or the XML is invalid.
        self.insert_at: int | None = None
        self._texts: list[str] = []
        parser = expat.ParserCreate("UTF-8")
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        parser.StartElementHandler = self._start_element
        parser.CharacterDataHandler = self._texts.append
        parser.EndElementHandler = self._end_element
        self._parser = parser
        try:
            parser.Parse(self.data, True)
        except (expat.ExpatError, ValueError):
            self.insert_at = None

    def with_description(self, description: str) -> bytes | None:
        """Return the packet with one more description; None if it is invalid or has a label."""
        if self.insert_at is None or self.labels:
            return None
        position = self.insert_at
        parts = (
            self.data[:position],
            description.encode(),
            self.data[position:],
        )
        return b"".join(parts)

    def _refuse_doctype(self, *_) -> None:
        # Nested entities could expand to any size ("billion laughs").
        raise ValueError("XMP has no document type")

    def _start_element(self, name: str, attributes: dict) -> None:
        self._texts.clear()
        for key, value in attributes.items():
            if key.endswith(":AIGC"):
                self.labels.append(value)

    def _end_element(self, name: str) -> None:
        if name.endswith(":AIGC"):
            text = "".join(self._texts)
            self.labels.append(text)
        position = self._parser.CurrentByteIndex
        # Not for an empty element, which has no end tag: <rdf:RDF/>
        is_end_tag = self.data.startswith(b"</", position)
        if is_end_tag and name.endswith(":RDF"):
            self.insert_at = position


def format_description(label: Texts) -> str:
    """Return the XMP description for a label."""
    separators = (",", ":")
    text = json.dumps(dict(label), separators=separators)
    # In the content of an element quotes need not be escaped, and some readers search the file
    # for plain JSON.
    text = html.escape(text, quote=False)
    return XMP_DESCRIPTION.format(text)


def format_packet(description: str) -> bytes:
    """Return an XMP packet with this description only."""
    packet = XMP_PACKET.format(description)
    return packet.encode()


def parse_label(text: str) -> dict | None:
    """Return the label in a JSON text, which may be {"AIGC": label}; None if it is not valid."""
    decoder = json.JSONDecoder()
    text = text.strip()
    try:
        label, _ = decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(label, dict):
        return None
    inner = label.get("AIGC")
    if isinstance(inner, dict):
        label = inner
    for value in label.values():
        is_nested = isinstance(value, (dict, list))
        if is_nested:
            return None
    return label or None
