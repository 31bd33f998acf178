"""Files of any kind.

Written whole or not at all (:mod:`~.atomic`), by this user only (:mod:`~.own_files`), unchanged since
(:mod:`~.identity`); :mod:`~.csv_files` and :mod:`~.json_files`; zips from strangers (:mod:`~.zip_members`); names and
values in messages (:mod:`~.printable`).
"""
