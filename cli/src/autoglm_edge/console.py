"""What every command prints with: results on standard output, everything else on standard error.

Exit codes: 0 done; 1 could not be done, one line says what failed, why and what to do; 2 the command line is wrong;
3 done in part (each command says in its help what that means); 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

EXIT_FAILED = 1
EXIT_PARTIAL = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def print_json(value: Any) -> None:
    """Print a value for scripts: one JSON document, never wrapped or coloured."""
    out.file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
