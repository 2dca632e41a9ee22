"""One full example of every document, for tests that must hold for all of them."""

from __future__ import annotations

from autoglm_edge_protocol.chunks import Chunk, ChunkedFile, ChunkIndex
from autoglm_edge_protocol.claims import Claim, prove
from autoglm_edge_protocol.commands import Answer, Command, Outcome
from autoglm_edge_protocol.deployment import (
    BundleReference,
    DeploymentReport,
    DesiredState,
    DeviceFacts,
    Installed,
    Presence,
    Reason,
    ReportedState,
    TrustReport,
)
from autoglm_edge_protocol.digests import sha256_of
from autoglm_edge_protocol.documents import Document
from autoglm_edge_protocol.enrolment import (
    Board,
    CertificateAnswer,
    CertificateRequest,
    EnrolmentAnswer,
    EnrolmentRequest,
    Grant,
    RenewalAnswer,
    RenewalRequest,
)
from autoglm_edge_protocol.envelopes import seal
from autoglm_edge_protocol.histogram import Histogram
from autoglm_edge_protocol.manifest import (
    CHUNK_INDEX_PATH,
    GOLDEN_PATH,
    FileEntry,
    Latency,
    Manifest,
    Provenance,
    Quality,
    RuntimeNeeds,
    Source,
    TensorSpec,
    Tolerance,
    Variant,
)
from autoglm_edge_protocol.probation import ProbationReport, ProbationTerms, ShadowTerms
from autoglm_edge_protocol.signed import MetadataFile, SignedMessage
from autoglm_edge_protocol.telemetry import InferenceWindow, SystemSample, TelemetryBatch
from autoglm_edge_protocol.transfer import FetchRefusal, FetchRequest, StreamCredit

DIGEST = sha256_of(b"")
MODEL_PATH = "variants/fp32/model.onnx"

_reference = BundleReference(name="magika", version="1.0.0+3", manifest_sha256=DIGEST, manifest_size_bytes=2000)
_reason = Reason(code="golden-set", message='Ausgabe „scores": 7 % agree')

VARIANT = Variant(
    id="fp32",
    format="onnx",
    precision="fp32",
    pruning=0.25,
    model=MODEL_PATH,
    files=(MODEL_PATH,),
    needs=RuntimeNeeds(runtime="onnxruntime", min_version="1.18", memory_bytes=1),
    inputs=(TensorSpec(name="x", datatype="INT32", shape=(-1, 2048)),),
    outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 10)),),
    quality=Quality(metric="top1-agreement", value=1.0, samples=8, sqnr_db={"y": None, "z": -3.5}),
    latency=Latency(median_us=10.5, cpu_us=11.0, speedup=1, machine="m", runtime="r", threads=1),
    tolerances=(Tolerance(output="y", min_sqnr_db=20.0, min_top1_agreement=0.99, min_equal=0.5),),
    notes=("kept 3 nodes in float",),
)

_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
_CSR = "-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n"

CLAIM = Claim(
    fleet="home",
    claim_id="b95f82062fa332f4",
    secret="9d" * 32,
    created_at=1.0,
    expires_at=2.5,
    tags={"site": "Berlin 2"},
    broker_url="mqtts://broker.example:8884",
    broker_ca=_CERTIFICATE,
    device_broker_url="mqtts://broker.example",
    fleet_ca_sha256=DIGEST,
    root='{"signed": {}}',
    name_prefix="porch",
    name="porch-1",
)
_grant = Grant(certificate=_CERTIFICATE, not_before=1.0, not_after=2.0)
_request = CertificateRequest(
    fleet="home",
    request_id="enrol-" + "0" * 32,
    csr=_CSR,
    name="porch-1",
    board=Board(board_id="1f" * 16, model="Raspberry Pi 4 „Model B“", architecture="aarch64"),
)
_answer = CertificateAnswer(
    fleet="home",
    request_sha256=DIGEST,
    at=1.0,
    status="issued",
    device="porch-1",
    grant=_grant,
    authority=_CERTIFICATE,
    broker_url="mqtts://broker.example:8883",
    broker_ca=_CERTIFICATE,
)

MANIFEST = Manifest(
    name="magika",
    version="1.0.0",
    description="what kind of file it is",
    variants=(VARIANT,),
    files=tuple(
        FileEntry(path=path, size_bytes=0, sha256=DIGEST)
        for path in (CHUNK_INDEX_PATH, GOLDEN_PATH, "labels.txt", "report.html", MODEL_PATH)
    ),
    golden=GOLDEN_PATH,
    labels="labels.txt",
    report="report.html",
    provenance=Provenance(
        source=Source(file="model.onnx", format="onnx", size_bytes=1, sha256=DIGEST),
        calibration_sha256=DIGEST,
        converter="0.1.0",
        versions={"onnx": "1"},
        plan={"opset": 17, "excluded": ["a"], "nested": {"fraction": 0.5, "none": None}},
    ),
)

EXAMPLES: tuple[Document, ...] = (
    MANIFEST,
    ChunkIndex(files=(ChunkedFile(sha256=DIGEST, size_bytes=3, chunks=(Chunk(size_bytes=3, sha256=DIGEST),)),)),
    DesiredState(
        fleet="home",
        device="pi",
        generation=7,
        bundle=_reference,
        variant="int8",
        probation=ProbationTerms(duration_s=3600, patience_s=7200.5, max_crashes=0, shadow=ShadowTerms(rate=0.25)),
        issued_at=1.5,
    ),
    DesiredState(
        fleet="home",
        device="pi",
        generation=2**53 - 1,
        bundle=None,
        signed_at=1.0,
        expires_at=2.5,
        allow_downgrade=True,
        downgrade_reason="1.1 überhitzt",
    ),
    ReportedState(
        device="pi",
        session=3,
        sequence=9,
        at=1.5,
        facts=DeviceFacts(
            agent_version="0.1.0",
            board="rpi4",
            architecture="aarch64",
            cores=4,
            memory_bytes=2**32,
            runtimes={"onnxruntime": "1.23"},
        ),
        deployment=DeploymentReport(
            generation=7,
            bundle=_reference,
            phase="failed",
            probation=ProbationReport(elapsed_s=12.5, requests=40, compared=20, differed=7.5),
            reason=_reason,
        ),
        current=Installed(bundle=_reference, variant="fp32"),
        serving=True,
        endpoints=("http://127.0.0.1:8080",),
        trust=TrustReport(mode="signed", root_version=2, timestamp_version=9, time_floor=1.5, refusal=_reason),
    ),
    Presence(device="pi", session=3, online=False, board="1f" * 16),
    Command(
        command_id="c-1", device="pi", fleet="home", name="restart-worker", arguments={"force": "yes"}, expires_at=2.0
    ),
    Answer(device="pi", command_id="c-1", outcome=Outcome.UNKNOWN, result={"a": "b"}, reason=_reason, at=2.0),
    TelemetryBatch(
        device="pi",
        boot_id="b",
        sequence=0,
        samples=(SystemSample(at=1.0, cpu_percent=3.5, temperature_c=-4.0, agent_rss_bytes=1),),
        inference=(
            InferenceWindow(
                bundle="magika@1.0.0",
                variant="fp32",
                started_at=1.0,
                duration_s=60.0,
                requests=3,
                errors=0,
                latency=Histogram(count=3, sum_us=30.0, max_us=11.0, buckets={58: 2, 60: 1}),
            ),
        ),
        dropped_batches=1,
    ),
    FetchRequest(request_id=1, sha256=DIGEST, block_bytes=65536, ranges=((0, 2), (5, 1))),
    StreamCredit(sha256=DIGEST, block_bytes=65536, block=12),
    FetchRefusal(request_id=1, sha256=DIGEST, reason=Reason(code="not-found", message="no such file")),
    CLAIM,
    _request,
    EnrolmentRequest(claim_id=CLAIM.claim_id, request=prove(_request, CLAIM.secret)),
    _answer,
    EnrolmentAnswer(answer=prove(_answer, CLAIM.secret)),
    RenewalRequest(device="pi", csr=_CSR),
    RenewalAnswer(device="pi", grant=_grant),
    SignedMessage(
        envelope=seal("text/plain", b"{}", [("k", lambda data: data)]),
        catalogue={
            "1.root.json": MetadataFile(sha256=DIGEST, size_bytes=1),
            "timestamp.json": MetadataFile(sha256=DIGEST, size_bytes=2),
            "7.model-a_b-c.json": MetadataFile(sha256=DIGEST, size_bytes=3),
        },
    ),
)
