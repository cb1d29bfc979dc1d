"""TLS between two nodes of a run: both show a certificate of the run's authority, and nothing below TLS 1.3 is spoken.

Certificates and keys are PEM texts that came through the sessions; they are read from memory and never stand in a file.
"""

import os
import ssl
from typing import Any

Credentials = dict[str, Any]
"""`{authority, certificate, key}` as PEM texts."""


def context(credentials: Credentials, *, serving: bool) -> ssl.SSLContext:
    """The settings of one side. The other side's certificate is required, and of this authority, on both."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serving else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    if serving:
        made.num_tickets = 0
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=credentials["authority"])
    handle = os.memfd_create("sparkops-credentials", os.MFD_CLOEXEC)
    try:
        os.write(handle, (credentials["key"] + credentials["certificate"]).encode())
        made.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
    return made


def name_of(connection: ssl.SSLSocket) -> str:
    """The node that the other side's certificate was made for."""
    subject: Any = (connection.getpeercert() or {}).get("subject", ())
    return next((str(value) for part in subject for key, value in part if key == "commonName"), "")
