"""The journey of an annotator through the real label server: ``bash scripts/monailabel.sh --selftest``.

It needs the server's environment (MONAI Label), so it isn't among the tests; its films serve them too.
"""
