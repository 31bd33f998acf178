"""Films by C-STORE, on this machine's loopback only: DIMSE has neither a login nor, here, encryption.

Source: DICOM PS3.7 9.1.1 (C-STORE), PS3.4 B.2.3 (its statuses).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from cxw_monai.io import RadiographError

from .intake import take_in
from .queue import FilmQueue, FullError
from .work import Metrics

__all__ = ["start_dimse"]

_FILMS = tuple(f"1.2.840.10008.5.1.4.1.1.{part}" for part in ("1", "1.1", "1.1.1", "7"))  # CR, DX, secondary capture
_TAKEN, _FULL, _NO_FILM = 0x0000, 0xA700, 0xA900
_ASSOCIATIONS, _SECONDS = 8, 60


def start_dimse(queue: FilmQueue, metrics: Metrics, port: int, ae_title: str) -> Any:
    """Listen for C-STORE and C-ECHO; what it gives has `shutdown()`.

    Args:
        queue, metrics: of the service.
        port: on 127.0.0.1.
        ae_title: of the service, at most 16 characters.

    Raises:
        OSError: the port is in use.
    """
    _config.STORE_RECV_CHUNKED_DATASET = True  # to a file as it comes, not to memory
    _config.LOG_HANDLER_LEVEL = "none"  # its handlers log UIDs and titles
    entity = AE(ae_title=ae_title)
    entity.maximum_associations = _ASSOCIATIONS
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = _SECONDS
    for sop_class in _FILMS:
        entity.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(Verification)

    def stored(event: evt.Event) -> Dataset | int:
        return _store(queue, metrics, event)

    return entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, stored)])


def _store(queue: FilmQueue, metrics: Metrics, event: Any) -> Dataset | int:
    """Take a film; a status, with the reason where it isn't taken."""
    file = queue.incoming / f"{os.urandom(16).hex()}.dcm"
    _moved(Path(event.dataset_path), file)
    try:
        metrics.add("received", take_in(queue, file).new)
    except RadiographError as error:
        metrics.add("refused_objects")
        return _status(_NO_FILM, error.reason)
    except FullError:
        return _status(_FULL, "too many films wait; send again later")
    return _TAKEN


def _moved(received: Path, file: Path) -> None:
    """Copy what was received, which pynetdicom deletes, and bring it to the disk."""
    with received.open("rb") as source, file.open("wb") as stream:
        while block := source.read(1 << 20):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())


def _status(code: int, comment: str) -> Dataset:
    status = Dataset()
    status.Status, status.ErrorComment = code, comment[:64]
    return status
