"""`python -m autoglm_edge_agent.trust.verifier DIRECTORY`: judges one message, and ends.

The only process of the agent that loads tuf and cryptography. It reads and writes what `wire` describes, keeps to
limits of its own on memory and processor time, and leaves nothing behind but what TUF has verified, in its directory.
Exit code 0: a verdict was given; anything else: none, and none is implied.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import IO

from autoglm_edge_agent.trust.decision import Distrust
from autoglm_edge_agent.trust.judge import Judge
from autoglm_edge_agent.trust.repository import Fetch, Repository, TooLarge
from autoglm_edge_agent.trust.wire import (
    FOUND,
    MISSING,
    Ask,
    FromVerifier,
    Question,
    Verdict,
    parse_frame,
    read_frame,
    write_frame,
)

MEMORY_BYTES = 512 * 1024 * 1024
"""Of address space; some 60 MB are used."""
PROCESSOR_S = 60


def main() -> None:
    """Judge the message that comes on standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S, PROCESSOR_S))
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints must not pass for a frame
    question = parse_frame(Question, read_frame(questions))
    verdict = _verdict(question, Path(sys.argv[1]), _fetching(questions, answers))
    write_frame(answers, FromVerifier(verdict=verdict).to_bytes())


def _verdict(question: Question, directory: Path, fetch: Fetch) -> Verdict:
    try:
        return Judge(question, Repository(directory, fetch)).verdict()
    except Distrust as distrust:
        return Verdict(refusal=distrust.reason)


def _fetching(questions: IO[bytes], answers: IO[bytes]) -> Fetch:
    def fetch(name: str, max_bytes: int) -> bytes | None:
        write_frame(answers, FromVerifier(ask=Ask(name=name, max_bytes=max_bytes)).to_bytes())
        answer = read_frame(questions)
        if answer[:1] == FOUND:
            return answer[1:]
        if answer[:1] == MISSING:
            return None
        raise TooLarge(name)

    return fetch


if __name__ == "__main__":
    main()
