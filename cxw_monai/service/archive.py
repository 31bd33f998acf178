"""The archive behind a DICOMweb server: films of it, and results stored to it (QIDO-RS, WADO-RS, STOW-RS)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from requests.auth import HTTPBasicAuth

from cxw_monai.io.dicom.file import quiet_pydicom
from cxw_monai.io.dicom.film_classes import FILM_MODALITIES

from .stow import parts

__all__ = ["Archive", "ArchiveError", "Stored"]

_TIMEOUTS = 10.0, 120.0  # s to connect, and between two bytes of an answer
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_AS_IT_IS = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
_DUPLICATE = 0x0111  # the failure reason of an instance that the archive has already (PS3.18 I.2)


class ArchiveError(Exception):
    """The archive can't be reached, or answers with an error; it may take what it is sent at another time."""


class Stored(NamedTuple):
    """An instance on the server, by its UIDs."""

    study: str
    series: str
    instance: str


class _Session(requests.Session):
    """A session whose requests end."""

    def request(self, *what: Any, **how: Any) -> requests.Response:
        return super().request(*what, **{"timeout": _TIMEOUTS, **how})


class Archive:
    """A DICOMweb server.

    Args:
        url: of the service, such as ``http://127.0.0.1:8042/dicom-web``.
        credentials: user and password, or None.
    """

    def __init__(self, url: str, credentials: tuple[str, str] | None = None) -> None:
        self._url, self._session = url.rstrip("/"), _Session()
        self._session.trust_env = False  # a proxy of the environment is not for the clinic's archive
        self._session.auth = HTTPBasicAuth(*credentials) if credentials else None
        self._client = DICOMwebClient(self._url, session=self._session)
        self._client.set_http_retry_params(retry=False)  # the queue tries again

    def films(self, days: int = 0) -> Iterator[Stored]:
        """Films of studies of the last `days` days; of all studies with 0.

        Raises:
            ArchiveError: the server doesn't answer as it should.
        """
        filters = {"StudyDate": f"{date.today() - timedelta(days=days):%Y%m%d}-"} if days else {}
        for modality in FILM_MODALITIES:
            how = {"search_filters": {"Modality": modality, **filters}, "get_remaining": True}
            for found in self._asked(self._client.search_for_instances, **how):
                try:
                    yield Stored(*(str(found[tag]["Value"][0]) for tag in (_STUDY, _SERIES, _INSTANCE)))
                except (KeyError, IndexError, TypeError):
                    raise ArchiveError("the DICOMweb server listed an instance without its UIDs") from None

    def fetch(self, film: Stored, path: Path) -> None:
        """Save a film's file as the server has it: the client's own way would parse it, and refuses old files.

        Raises:
            ArchiveError: the server doesn't answer as it should.
        """
        url = f"{self._url}/studies/{film.study}/series/{film.series}/instances/{film.instance}"
        answer = self._asked(self._session.get, url, headers=_AS_IT_IS)
        try:
            answer.raise_for_status()
            start, end = next(parts(answer.content, answer.headers.get("content-type", "")))
        except requests.HTTPError:
            raise ArchiveError(f"the DICOMweb server answered {answer.status_code}") from None
        except ValueError as error:
            raise ArchiveError(f"the DICOMweb server's answer can't be read: {error}") from error
        with path.open("wb") as stream:
            stream.write(memoryview(answer.content)[start:end])
            stream.flush()
            os.fsync(stream.fileno())

    def store(self, files: Iterable[Path]) -> None:
        """Store results; those that the archive has already are as good as stored.

        Raises:
            ArchiveError: it doesn't take one of them, or doesn't answer as it should.
        """
        with quiet_pydicom():
            answer = self._asked(self._client.store_instances, [pydicom.dcmread(file) for file in files])
        failed = [int(one.get("FailureReason", 0)) for one in answer.get("FailedSOPSequence") or []]
        if reasons := [f"{reason:#06x}" for reason in failed if reason != _DUPLICATE]:
            raise ArchiveError(f"the archive did not take a result ({', '.join(reasons)})")

    def _asked(self, request: Any, *what: Any, **how: Any) -> Any:
        """The server's answer."""
        try:
            return request(*what, **how)
        except requests.HTTPError as error:
            status = None if error.response is None else error.response.status_code
            raise ArchiveError(f"the DICOMweb server answered {status}") from error
        except requests.RequestException as error:
            raise ArchiveError(f"the DICOMweb server can't be reached ({type(error).__name__})") from error
        except Exception as error:  # what the client makes of an answer that is none
            raise ArchiveError(f"the DICOMweb server's answer can't be read ({type(error).__name__})") from error
