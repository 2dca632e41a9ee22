"""The folder that a conversion works in: its samples and the models that it makes, gone afterwards."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from autoglm_edge_converter.errors import OutputUnavailable

_NO_ROOM = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)  # Windows has no quotas


@contextmanager
def working_folder() -> Iterator[Path]:
    """Give an empty folder that is removed when the block ends.

    Raises OutputUnavailable where there is no room for what is written, here or in the cache; other OSError go on.
    """
    with TemporaryDirectory(prefix="autoglm-convert-") as name:
        try:
            yield Path(name)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            where = error.filename or Path(name).parent
            raise OutputUnavailable(
                f"no room for what a conversion works with ({where}: {error.strerror}): make some, or name another "
                "folder with TMPDIR, and with --cache"
            ) from None
