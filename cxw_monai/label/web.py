"""MONAI Label's web application, answering this machine's own pages and clients only.

As it comes, it allows any web page that a user visits to read from a server on the user's machine (CORS for all
origins); the setting that should name the allowed ones doesn't work in MONAI Label 0.8.5.
"""

import os

from fastapi.middleware.cors import CORSMiddleware
from monailabel.app import app
from starlette.middleware.trustedhost import TrustedHostMiddleware

__all__ = ["HOSTS_VARIABLE", "app"]

HOSTS_VARIABLE = "CXW_LABEL_HOSTS"
"""Names under which clients may address the server, with commas between them; ``*`` for any."""

app.user_middleware = [one for one in app.user_middleware if one.cls is not CORSMiddleware]
app.add_middleware(TrustedHostMiddleware, allowed_hosts=os.environ.get(HOSTS_VARIABLE, "*").split(","))
