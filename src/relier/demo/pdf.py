"""The smallest honest PDF: pages of text lines in Helvetica, written by hand.

The format is that of the PDF Reference 1.4: numbered objects, a table of their offsets, a trailer.
"""

from __future__ import annotations

from collections.abc import Sequence

MARK = b"%PDF-1.4"
_END = b"%%EOF\n"
_FIRST_LINE_Y, _LEFT_X, _LEADING = 780, 60, 16


def render(title: str, lines: Sequence[str]) -> bytes:
    """Return one A4 page with a title and lines of text below it."""
    page = _content(title, lines)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    data, offsets = MARK + b"\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return (
        data
        + b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
        + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n" % (size, len(data))
        + _END
    )


def whole(data: bytes) -> bool:
    """Return whether these bytes are a PDF from its first line to its last."""
    return data.startswith(MARK) and data.endswith(_END)


def _content(title: str, lines: Sequence[str]) -> bytes:
    drawn = [f"BT /F1 22 Tf {_LEFT_X} {_FIRST_LINE_Y} Td ({_escaped(title)}) Tj ET"]
    for row, line in enumerate(lines):
        y = _FIRST_LINE_Y - 40 - row * _LEADING
        drawn.append(f"BT /F1 11 Tf {_LEFT_X} {y} Td ({_escaped(line)}) Tj ET")
    return "\n".join(drawn).encode("cp1252", errors="replace")


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
