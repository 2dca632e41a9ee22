"""The demonstration as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.brokers import available_kinds

PROGRAM = Path(sys.executable).with_name("autoglm-edge")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demonstration_shows_what_it_promises(tmp_path: Path) -> None:
    kind = available_kinds()[0]
    output = tmp_path / "out"
    command = [str(PROGRAM), "demo", "--output", str(output), "--broker", kind, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    figures = json.loads(ran.stdout)
    assert figures["broker"] == kind
    assert figures["failed_requests"] == 0
    assert figures["requests"] > 100
    assert set(figures["requests_by_way"]) == {"fast path", "tritonclient"}
    assert all(asked > 10 for asked in figures["requests_by_way"].values())
    phases = [(each["bundle"], each["phase"]) for each in figures["deployments"]]
    assert phases == [
        (f"filetype@1.{act}.0", phase)
        for act, phase in enumerate(("confirmed", "confirmed", "failed", "failed"))
        for _ in range(3)
    ]
    assert all(each["reason"]["code"] == "golden-disagreement" for each in figures["deployments"][6:9])
    assert all(each["reason"]["code"] == "probation-disagreement" for each in figures["deployments"][9:])
    assert [each["reason"]["code"] for each in figures["attacks"]] == ["replayed", "corrupt-data", "downgrade"]
    assert_on_screen(ran.stderr.splitlines(), figures)
    exact, small = figures["variants"]
    assert small["size_bytes"] < 0.5 * exact["size_bytes"]
    assert small["speedup"] > 1
    # Kernels differ by CPU and by batch: an answer may change where two classes are all but equally likely.
    assert exact["agreement_devices"] > 0.995
    assert small["agreement_devices"] > 0.9
    # What each device fetches goes out once at the most, next to nothing more; at best once for all three, and packed.
    needed = sum(each["fetched_bytes"] for each in figures["deployments"][:3])
    assert needed / 4 <= figures["sent_bytes"]["1.0.0"] <= 1.05 * needed
    told = figures["telemetry"].values()
    assert len(told) == 3
    assert all(each["errors"] == 0 for each in told)
    assert 0.8 * figures["requests"] < sum(each["requests"] for each in told) <= figures["requests"]
    assert Path(figures["report"]).is_file()


def assert_on_screen(lines: list[str], figures: Any) -> None:
    """Whoever watches reads of each refusal who refused what, and why."""
    for each in figures["attacks"]:
        reason = each["reason"]
        refusal = f"  {each['device']} refuses {each['attack']} ({reason['code']}): {reason['message']}"
        assert refusal in lines, (refusal, lines)
    damaged, mistaken = (figures["deployments"][place]["reason"] for place in (6, 9))
    told = "The damaged bundle was refused by every device (golden-disagreement)"
    assert f"{told}: {damaged['message']}" in lines
    told = "The mistaken bundle served, was watched, and every device went back (probation-disagreement)"
    assert f"{told}: {mistaken['message']}" in lines
    replayed, tampered, older = (each["reason"]["message"] for each in figures["attacks"])
    assert "generation 2 is over: 4 was accepted before" in replayed, "of the INT8 bundle, before two others"
    assert "came wrong 3 times" in tampered, "as often as it was fetched"
    assert "filetype@1.0.0 is older than 1.1.0, which was confirmed here" in older
    assert "answers differently from the previous model" in mistaken["message"]


def test_the_demonstration_does_not_empty_a_folder_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    ran = subprocess.run([str(PROGRAM), "demo", "--output", str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "holds something else" in ran.stderr
    assert (tmp_path / "thesis.tex").exists()
