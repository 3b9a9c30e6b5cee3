"""The envelope: who vouches for a message, and whether it is still what they vouched for.

It is one header, ``<version>.<key id>.<publish>.<mac>``. The MAC (HMAC-SHA256) covers the exact
body text, the content type, and every header and property but the marks that a stock worker sets
when it puts a message back: whatever a worker reads from a message was there when it was signed.
Nothing is encrypted: Celery's tools read messages as ever. What version 1 covers never changes.

A stock worker that retries copies the header into a message of its own. The third part, a checksum
of the delivery tag, tells such a copy, which nobody signed, from a message that was changed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

HEADER = "rl_env"
VERSION = 1

_PURPOSE = b"relier envelope 1"
_KEY_ID_PURPOSE = b"relier key id"
_SHAPE = re.compile(r"(\d{1,6})\.([0-9a-f]{8})\.([0-9a-f]{8})\.([\w-]{43})", re.ASCII)
_NEWER_SHAPE = re.compile(r"(\d{1,6})\.([0-9a-f]{8})\..+", re.ASCII | re.DOTALL)
_PUT_BACK = "redelivered"

_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode


class Verdict(StrEnum):
    """What became of verifying a message."""

    NO_TASK = "no task message"
    VERIFIED = "verified"
    UNSIGNED = "unsigned"
    COPIED = "unsigned: the envelope is another message's"
    UNCHECKED = "not checked: there is no key here"
    MALFORMED = "malformed envelope"
    NEWER = "newer envelope"
    UNKNOWN_KEY = "unknown key"
    CHANGED = "changed since it was signed"


class Seal(NamedTuple):
    """What a message's envelope says, and what came of verifying it.

    Args:
        verdict: the result.
        version: of the envelope; 0 when there is none to be read.
        key_id: of the key that signed it, or "".
    """

    verdict: Verdict
    version: int = 0
    key_id: str = ""


class Keyring:
    """The keys of this process: the first signs, all verify.

    Args:
        secrets: the keys; none means that nothing is signed and nothing verified.
        required: refuse messages that nobody signed.
    """

    def __init__(self, secrets: Sequence[str] = (), *, required: bool = False) -> None:
        self._keys = [(key_id(secret), _hmac_of(secret)) for secret in secrets]
        self.required = required

    def __repr__(self) -> str:
        return f"<Keyring of {', '.join(self.ids) or 'no keys'}>"

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of the keys, the one that signs first."""
        return tuple(each for each, _ in self._keys)

    @property
    def signs(self) -> bool:
        """Return whether there is a key to sign with."""
        return bool(self._keys)

    def seal(
        self,
        headers: Mapping[str, Any],
        properties: Mapping[str, Any],
        content_type: str,
        content_encoding: str,
        body: str | bytes,
    ) -> str:
        """Return the envelope of a message that msgspec can encode; there must be a key.

        Args:
            headers: all but the envelope itself.
            properties: as they will travel.
            body: the body's text as it stands in the message.
        """
        meta = {
            "content-encoding": content_encoding,
            "content-type": content_type,
            "headers": headers,
            "properties": properties,
        }
        tag = properties["delivery_tag"]
        return self._seal(tag, _encode(meta), body.encode() if isinstance(body, str) else body)

    def seal_raw(self, raw: str | bytes) -> str:
        """Return the envelope of a message as it will stand in the queue; there must be a key.

        Args:
            raw: the whole message as JSON; an envelope that it has already does not count.

        Raises:
            ValueError: it is no message.
        """
        payload = _read(raw)
        if not _is_message(payload):
            raise ValueError("it is no message of kombu's")
        return self._seal(payload["properties"].get("delivery_tag"), *_covered(payload))

    def judge(self, raw: bytes) -> Seal:
        """Verify a message as it came out of a queue; nothing of it is trusted before."""
        payload = _read_or_none(raw)
        headers = payload.get("headers") if isinstance(payload, dict) else None
        if not isinstance(headers, dict) or "task" not in headers:
            return Seal(Verdict.NO_TASK)
        text = headers.get(HEADER)
        if text is None:
            return Seal(Verdict.UNSIGNED)
        found = _NEWER_SHAPE.fullmatch(text) if isinstance(text, str) else None
        if found is None or not _is_message(payload):
            return Seal(Verdict.MALFORMED)
        version, signer = int(found[1]), found[2]
        return Seal(self._verdict(payload, text, version, signer), version, signer)

    def _verdict(self, payload: Any, text: str, version: int, signer: str) -> Verdict:
        if not self._keys:
            return Verdict.UNCHECKED
        if version > VERSION:
            return Verdict.NEWER
        shape = _SHAPE.fullmatch(text)
        if version != VERSION or shape is None:
            return Verdict.MALFORMED
        tag = payload["properties"].get("delivery_tag")
        if shape[3] != _publish_of(tag):
            return Verdict.COPIED
        candidates = [mac for each, mac in self._keys if each == signer]
        if not candidates:
            return Verdict.UNKNOWN_KEY
        meta, body = _covered(payload)
        for mac in candidates:
            # The texts are compared, not what they decode to: base64 has spare bits at its end.
            if hmac.compare_digest(_envelope(signer, mac, tag, meta, body), text):
                return Verdict.VERIFIED
        return Verdict.CHANGED

    def _seal(self, tag: object, meta: bytes, body: bytes) -> str:
        signer, mac = self._keys[0]
        return _envelope(signer, mac, tag, meta, body)


def key_id(secret: str) -> str:
    """Return a key's public name, from which the key cannot be found."""
    digest = hashlib.sha256(b"\0".join((_KEY_ID_PURPOSE, secret.encode())))
    return digest.hexdigest()[:8]


def refusal(seal: Seal, keyring: Keyring) -> str:
    """Return why a message must not be run, and what to do about it; "" when it may."""
    match seal.verdict:
        case Verdict.VERIFIED | Verdict.UNCHECKED | Verdict.NO_TASK:
            return ""
        case Verdict.UNSIGNED | Verdict.COPIED:
            if not keyring.required:
                return ""
            copied = (
                " (its envelope is another message's)" if seal.verdict is Verdict.COPIED else ""
            )
            return (
                f"the message is not signed{copied}, and RELIER_REQUIRE_SIGNATURE is on: "
                "give its producer RELIER_SECRET_KEY"
            )
        case Verdict.UNKNOWN_KEY:
            return (
                f"the message is signed by key {seal.key_id}, and RELIER_SECRET_KEY has only "
                f"{', '.join(keyring.ids)} here: add the key, then `rl dlq release`"
            )
        case Verdict.NEWER:
            return (
                f"the message has an envelope of version {seal.version}, and this relier reads "
                f"{VERSION}: upgrade the workers, then `rl dlq release`"
            )
        case Verdict.MALFORMED:
            return "the message's envelope is cut or garbled: look who writes to the queue"
        case Verdict.CHANGED:
            return (
                f"the message is not what key {seal.key_id} signed: it was changed or cut on the "
                "way; look who writes to the queue"
            )


def _hmac_of(secret: str) -> hmac.HMAC:
    return hmac.new(secret.encode(), digestmod="sha256")


def _publish_of(tag: object) -> str:
    return f"{zlib.crc32(str(tag).encode('utf-8', 'replace')):08x}"


def _envelope(signer: str, mac: hmac.HMAC, tag: object, meta: bytes, body: bytes) -> str:
    made = mac.copy()
    # The length keeps the end of the one from passing for the beginning of the other.
    made.update(b"%b %d " % (_PURPOSE, len(meta)))
    made.update(meta)
    made.update(body)
    text = base64.urlsafe_b64encode(made.digest())[:43].decode("ascii")
    return f"{VERSION}.{signer}.{_publish_of(tag)}.{text}"


def _read(raw: str | bytes) -> Any:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # NaN, a lone surrogate: Python's own reader takes what kombu's writer may have written. It
        # reads UTF-16 too, which kombu does not: both must see the same message.
        return json.loads(raw.decode() if isinstance(raw, bytes) else raw)


def _read_or_none(raw: bytes) -> Any:
    try:
        return _read(raw)
    except (ValueError, RecursionError):
        return None


def _is_message(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and isinstance(payload.get("headers"), dict)
        and isinstance(payload.get("properties"), dict)
        and isinstance(payload.get("body"), str)
    )


def _covered(payload: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return what is signed of a message: all but its body in canonical JSON, and its body."""
    headers, properties = dict(payload["headers"]), dict(payload["properties"])
    headers.pop(HEADER, None)
    headers.pop(_PUT_BACK, None)
    route = properties.get("delivery_info")
    if isinstance(route, dict) and _PUT_BACK in route:
        properties["delivery_info"] = {k: v for k, v in route.items() if k != _PUT_BACK}
    meta = {
        "content-encoding": payload.get("content-encoding"),
        "content-type": payload.get("content-type"),
        "headers": headers,
        "properties": properties,
    }
    return _canonical(meta), payload["body"].encode("utf-8", "surrogatepass")


def _canonical(meta: dict[str, Any]) -> bytes:
    try:
        return _encode(meta)
    except (UnicodeEncodeError, OverflowError):
        return json.dumps(meta, sort_keys=True).encode()
