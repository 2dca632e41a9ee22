"""Draw what the original and a variant of the bundle see, side by side, and count how many boxes are kept.

python draw.py FOLDER BUNDLE boxes.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from fetch import LABELS, MODEL
from PIL import Image, ImageDraw
from prepare import SIZE
from ssd import Detections, detections, matched

from autoglm_edge_converter.runners import Runner, open_runner

INPUT = "normalized_input_image_tensor"
OUTPUTS = ("raw_outputs/box_encodings", "raw_outputs/class_predictions")
COLOURS = ("#e6194b", "#0d7a70", "#4363d8", "#f58231", "#911eb4", "#808000")
COLUMNS, MARGIN, HEADING = 2, 8, 26


def fastest(bundle: Path) -> Path:
    """Return the file of the fastest variant on 8 bits. Raises SystemExit where there is none."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    eight = [entry for entry in manifest["variants"] if entry["precision"] in ("int8", "mixed")]
    if not eight:
        raise SystemExit(f"{bundle} has no variant on 8 bits")
    return bundle / str(max(eight, key=lambda entry: entry["latency"]["speedup"])["model"])


def seen(runner: Runner, picture: Image.Image) -> Detections:
    """Return what a model sees in a picture of 300 x 300."""
    pixels = (np.asarray(picture, np.float32) - 127.5) / 127.5
    return detections(dict(zip(OUTPUTS, runner.run({INPUT: pixels[None]}), strict=True)))


def kept(original: Runner, variant: Runner, pictures: list[Path]) -> tuple[int, int, int]:
    """Return how many boxes the original has in all pictures, how many the variant has, and how many are the same."""
    counts = np.zeros(3, int)
    for path in pictures:
        picture = Image.open(path).convert("RGB")
        before, after = seen(original, picture), seen(variant, picture)
        counts += (len(before.boxes), len(after.boxes), matched(before, after))
    total, found, same = counts.tolist()
    return total, found, same


def drawn(picture: Image.Image, found: Detections, labels: list[str]) -> Image.Image:
    """Return the picture with boxes, names and scores."""
    copy = picture.copy()
    pen = ImageDraw.Draw(copy)
    for box, score, kind in zip(found.boxes, found.scores, found.classes, strict=True):
        top, left, bottom, right = (float(edge) for edge in np.clip(box, 0, 1) * (SIZE - 1))
        colour, text = COLOURS[int(kind) % len(COLOURS)], f"{labels[int(kind)]} {score:.2f}"
        pen.rectangle((left, top, right, bottom), outline=colour, width=3)
        pen.rectangle(pen.textbbox((left + 4, top + 3), text), fill=colour)
        pen.text((left + 4, top + 3), text, fill="white")
    return copy


def sheet(original: Runner, variant: Runner, pictures: list[Path], labels: list[str]) -> Image.Image:
    """Return all pictures one below the other, the original's boxes on the left, the variant's on the right."""
    step = SIZE + MARGIN
    page = Image.new("RGB", (COLUMNS * step + MARGIN, HEADING + len(pictures) * step), "white")
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(("original, float", "variant, 8 bits")):
        pen.text((MARGIN + column * step, 8), title, fill="black")
    for row, path in enumerate(pictures):
        picture = Image.open(path).convert("RGB").resize((SIZE, SIZE))
        for column, runner in enumerate((original, variant)):
            place = (MARGIN + column * step, HEADING + row * step)
            page.paste(drawn(picture, seen(runner, picture), labels), place)
    return page


def main() -> None:
    """Compare over the pictures held out and draw the photographs."""
    folder, bundle, target = (Path(word) for word in sys.argv[1:4])
    labels = (folder / LABELS).read_text().splitlines()
    original, variant = open_runner(folder / MODEL), open_runner(fastest(bundle))
    total, found, same = kept(original, variant, sorted((folder / "held_out").iterdir()))
    shown = [folder / "photographs" / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "camera.png")]
    sheet(original, variant, shown, labels).save(target)
    told = f"{same} of the original's {total} boxes on pictures held out are kept ({same / total:.1%})"
    sys.stdout.write(f"{told}, the variant has {found}: {target}\n")


if __name__ == "__main__":
    main()
