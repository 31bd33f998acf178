"""Asks the service on this machine whether it works, by TLS or not: ``python -m cxw_monai.service.health [PORT]``.

Exit status: 0 it works, 1 it doesn't, or doesn't answer. What a container's health check runs.
"""

from __future__ import annotations

import ssl
import sys
import urllib.request

__all__ = ["healthy"]


def healthy(port: int) -> bool:
    """Whether a service on 127.0.0.1 answers that it works; its certificate, of another name, isn't checked."""
    unchecked = ssl.create_default_context()
    unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
    plain = urllib.request.ProxyHandler({})
    opener = urllib.request.build_opener(plain, urllib.request.HTTPSHandler(context=unchecked))
    for scheme in ("http", "https"):
        try:
            with opener.open(f"{scheme}://127.0.0.1:{port}/health", timeout=8) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError):
            continue
    return False


if __name__ == "__main__":
    sys.exit(not healthy(int(sys.argv[1]) if len(sys.argv) > 1 else 8043))
