"""Published folders made by a test, prepared and read back."""

from pathlib import Path
from typing import Any

from cxw_monai.data.manifest import read_records
from cxw_monai.data.schema import Record
from cxw_monai.data.validation import validate
from cxw_monai.datasets import prepare_dataset


def prepared_records(name: str, root: Path, distinct: bool = True, **options: Any) -> list[Record]:
    """The records of a set prepared into ``out`` beside ``root``, checked.

    Args:
        name: of the data set.
        root: the published folder.
        distinct: no two films have the same bytes.
        **options: of `prepare_dataset`.
    """
    out = root.parent / "out"
    prepare_dataset(name, root, out, **options)
    records = list(read_records(out / "manifest.csv"))
    validate(records, base_dir=out, check_files=True, check_content=distinct)
    return records
