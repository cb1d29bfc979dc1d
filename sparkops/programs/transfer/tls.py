"""TLS between two nodes of a run: both show a certificate of the run's authority, and TLS 1.3 is the oldest version.

Certificates and keys are PEM texts that came through the sessions; they are read from memory and never are in a file.
"""

import os
import ssl
from typing import Any

from sparkops.core.descriptors import closing
from sparkops.core.kind_messages import Credentials


def context(credentials: Credentials, *, serving: bool) -> ssl.SSLContext:
    """The settings of one side. The other side's certificate is required, and of this authority, on both."""
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if serving else ssl.PROTOCOL_TLS_CLIENT)
    settings.minimum_version = ssl.TLSVersion.TLSv1_3
    if serving:
        settings.num_tickets = 0
    settings.verify_mode = ssl.CERT_REQUIRED
    settings.load_verify_locations(cadata=credentials["authority"])
    with closing(os.memfd_create("sparkops-credentials", os.MFD_CLOEXEC)) as handle:
        os.write(handle, (credentials["key"] + credentials["certificate"]).encode())
        settings.load_cert_chain(f"/proc/self/fd/{handle}")
    return settings


def name_of(connection: ssl.SSLSocket) -> str:
    """The node that the other side's certificate was made for."""
    subject: Any = (connection.getpeercert() or {}).get("subject", ())
    return next((str(value) for part in subject for key, value in part if key == "commonName"), "")
