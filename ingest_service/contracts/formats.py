"""Well-known string formats as regular expressions: each matches only texts that its buf.validate rule lets pass.

Some are narrower than their rule, where the rule is a grammar (IPv6 with "::", URIs with every character): what they
don't match is for protovalidate to judge. Sources: the descriptions in `buf/validate/validate.proto`; RFC 1034 for host
names, RFC 4291 for addresses, RFC 3986 for URIs; the HTML standard for e-mail addresses.
"""

from __future__ import annotations

_HEX = "[0-9a-fA-F]"
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
# The last label begins with a letter: one of digits alone would make it a number.
_HOST = rf"(?:{_LABEL}\.){{0,3}}[a-zA-Z](?:[a-zA-Z0-9-]{{0,46}}[a-zA-Z0-9])?"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_IPV6 = rf"(?:{_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}"
_PATH = "[a-zA-Z0-9._~!$&'()*+,;=:@/-]*"
_URI = rf"https?://{_HOST}(?::[0-9]{{1,4}})?(?:/{_PATH})?(?:\?[a-zA-Z0-9._~!$&'()*+,;=:@/?-]*)?"

FORMATS: dict[str, str] = {
    "email": rf"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*$",
    "hostname": f"^{_HOST}$",
    "ip": f"^(?:{_IPV4}|{_IPV6})$",
    "ipv4": f"^{_IPV4}$",
    "ipv6": f"^{_IPV6}$",
    "address": f"^(?:{_HOST}|{_IPV4}|{_IPV6})$",
    "uri": f"^{_URI}$",
    "uri_ref": f"^{_URI}$",
    "uuid": f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$",
    "tuuid": f"^{_HEX}{{32}}$",
    "ulid": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$",
    "host_and_port": f"^(?:{_HOST}|{_IPV4}):[1-9][0-9]{{0,3}}$",
    "protobuf_fqn": r"^[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*$",
    "protobuf_dot_fqn": r"^\.[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*$",
    "ipv4_with_prefixlen": f"^{_IPV4}/(?:[0-9]|[12][0-9]|3[0-2])$",
}
