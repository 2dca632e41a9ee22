from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.converter.data.files import write_image, write_lines, write_png_digits

from autoglm_edge_converter.data.options import DataOptions
from autoglm_edge_converter.data.reading import open_data, read_data
from autoglm_edge_converter.errors import BadOption, ConversionError, NoSamples, SampleMismatch, UnreadableSample
from autoglm_edge_converter.tensors import Port

RGB = Port("x", "float32", (None, 3, 4, 6))


def gradient(height: int = 4, width: int = 6) -> np.ndarray:
    """Every channel and place another value."""
    return np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)


def test_the_shape_of_the_input_says_what_becomes_of_an_image(tmp_path: Path) -> None:
    pixels = gradient()
    write_image(tmp_path / "a.png", pixels)
    dataset = open_data(tmp_path, [RGB], DataOptions())
    expected = (pixels.astype(np.float64) / 255).astype(np.float32).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(dataset.load(0)["x"], expected)
    assert dataset.preprocessing is not None
    assert dataset.preprocessing.input == "x"
    assert "assumed from the model: colour, dtype, layout, resize, scale" in dataset.notes[0]


@pytest.mark.parametrize(
    ("port", "shape", "first"),
    [
        (Port("x", "float32", (None, 4, 6, 3)), (1, 4, 6, 3), 3 / 255),
        (Port("x", "uint8", (1, 3, None, None)), (1, 3, 4, 6), 3),
        (Port("x", "float16", (None, 3, 2, 3)), (1, 3, 2, 3), None),
        (Port("x", "float32", (None, 1, 4, 6)), (1, 1, 4, 6), None),
        (Port("x", "float32", (None, 4, 6)), (1, 4, 6), None),
        (Port("x", "float32", (None, None, None, None)), (1, 3, 4, 6), 3 / 255),
    ],
    ids=["nhwc", "whole numbers, free size", "half the size", "grey", "without channels", "nothing known"],
)
def test_inputs_of_many_shapes_take_images(
    tmp_path: Path, port: Port, shape: tuple[int, ...], first: float | None
) -> None:
    write_image(tmp_path / "a.png", gradient())
    tensor = open_data(tmp_path, [port], DataOptions()).load(0)["x"]
    assert (tensor.shape, tensor.dtype.name) == (shape, port.dtype)
    if first is not None:
        second = tensor[0, 0, 0, 1] if port.shape is not None and port.shape[-1] != 3 else tensor[0, 0, 1, 0]
        assert second == pytest.approx(first, abs=1e-7)


def test_flags_say_otherwise(tmp_path: Path) -> None:
    pixels = gradient()
    write_image(tmp_path / "a.png", pixels)
    options = DataOptions(colour="bgr", mean="123.7,116.3,103.5", std="58,57,57")
    dataset = open_data(tmp_path, [RGB], options)
    plain = pixels[..., ::-1].astype(np.float64)
    expected = ((plain - [123.7, 116.3, 103.5]) / [58, 57, 57]).astype(np.float32).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(dataset.load(0)["x"], expected)
    assert dataset.preprocessing is not None
    assert dataset.preprocessing.image is not None
    assert dataset.preprocessing.image.scale == 1.0, "a mean of pixels is meant for pixels as they are"


def test_crop_covers_the_size_and_the_file_may_say_more(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_image(folder / "a.png", np.repeat(gradient(4, 6), 4, axis=1))  # 4 x 24: far from the shape of the input
    covered = open_data(folder, [RGB], DataOptions(crop=True)).load(0)["x"]
    middle = np.repeat(gradient(4, 6), 4, axis=1)[:, 9:15].transpose(2, 0, 1)
    np.testing.assert_array_equal(covered[0], (middle / 255).astype(np.float32))
    steps = write_lines(
        tmp_path / "steps.toml",
        ["input = 'x'", "[image]", "fit = 'pad'", "pad_value = 7", "resize = '6x4'", "scale = 1", "mean = [0]"],
    )
    padded = open_data(folder, [RGB], DataOptions(preprocess=steps)).load(0)["x"]
    assert set(padded[0, :, 0].ravel().tolist()) == {7.0}
    sized = write_lines(tmp_path / "sized.toml", ["[image]", "resize = '8'", "crop = '6x4'", "scale = 1"])
    cut = open_data(folder, [RGB], DataOptions(preprocess=sized)).load(0)["x"]
    whole = open_data(folder, [Port("x", "float32", (1, 3, 8, 8))], DataOptions(scale="1")).load(0)["x"]
    np.testing.assert_array_equal(cut, whole[:, :, 2:6, 1:7])


def test_labels_come_from_folders_or_a_table(tmp_path: Path) -> None:
    for name in ("cat/1.png", "ant/2.png", "ant/deep/3.png"):
        write_image(tmp_path / name, gradient())
    dataset = open_data(tmp_path, [RGB], DataOptions())
    assert dataset.names == ("ant/2.png", "ant/deep/3.png", "cat/1.png")
    assert dataset.labels is not None
    assert [int(label[0]) for label in dataset.labels] == [0, 0, 1]
    assert any("classes are numbered by name (0 ant, 1 cat)" in note for note in dataset.notes)
    by_file = open_data(tmp_path, [RGB], DataOptions(), ["dog", "cat", "ant"])
    assert by_file.labels is not None
    assert [int(label[0]) for label in by_file.labels] == [2, 2, 1]
    digest = dataset.digest()
    write_lines(tmp_path / "labels.csv", ["file,label", "cat/1.png,7", "ant/2.png,8", "./ant/deep/3.png,9"])
    by_table = open_data(tmp_path, [RGB], DataOptions())
    assert by_table.labels is not None
    assert [int(label[0]) for label in by_table.labels] == [8, 9, 7]
    assert by_table.digest() != digest


def test_folders_named_by_number_are_those_classes(tmp_path: Path) -> None:
    for name in ("10/1.png", "2/2.png"):
        write_image(tmp_path / name, gradient())
    dataset = open_data(tmp_path, [RGB], DataOptions())
    assert dataset.labels is not None
    assert [int(label[0]) for label in dataset.labels] == [10, 2]


def test_a_fixed_batch_is_filled_from_several_files(tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / str(number % 2) / f"{number}.png", gradient() + np.uint8(number))
    dataset = open_data(tmp_path, [Port("x", "float32", (2, 3, 4, 6))], DataOptions())
    assert len(dataset) == 2
    assert dataset.load(1)["x"].shape == (2, 3, 4, 6)
    assert dataset.labels is not None
    assert dataset.labels[1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("mode", "pixels"),
    [
        ("RGBA", np.full((4, 6, 4), 200, np.uint8)),
        ("L", np.full((4, 6), 200, np.uint8)),
        ("I;16", np.full((4, 6), 200 * 256 + 17, np.uint16)),
    ],
)
def test_images_of_other_modes_become_rgb(tmp_path: Path, mode: str, pixels: np.ndarray) -> None:
    write_image(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == mode
    tensor = open_data(tmp_path, [Port("x", "uint8", (1, 4, 6, 3))], DataOptions()).load(0)["x"]
    assert set(tensor.ravel().tolist()) == {200}


def test_the_orientation_of_the_camera_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    image.save(tmp_path / "a.png", exif=exif)
    tensor = open_data(tmp_path, [Port("x", "uint8", (1, None, None, 3))], DataOptions()).load(0)["x"]
    assert tensor.shape == (1, 6, 4, 3)


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def truncated() -> bytes:
    import io

    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()[:2000]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "cannot be read as an image"),
        (b"\x89PNG\r\n\x1a\nrubbish", "cannot be read as an image"),
        (truncated(), "cannot be read as an image"),
        (bomb(), "cannot be read as an image|more than 64000000 pixels"),
        (b"plain text", "cannot be read as an image"),
    ],
    ids=["empty", "header only", "truncated", "bomb", "text"],
)
def test_damaged_images_are_said_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableSample, match=says) as caught:
        open_data(tmp_path, [RGB], DataOptions()).load(0)
    assert "\n" not in str(caught.value)
    assert "a.png" in str(caught.value)


@pytest.mark.parametrize(
    ("port", "options", "says"),
    [
        (Port("x", "float32", (None, 8)), DataOptions(), r"takes \[N,8\], which is no image"),
        (Port("x", "float32", None), DataOptions(), "takes unknown"),
        (Port("x", "float32", (1, 5, 4, 6)), DataOptions(), "neither the second nor the last axis"),
        (RGB, DataOptions(colour="grey"), "1 channels, but 'x' takes .*--colour"),
        (RGB, DataOptions(layout="nhwc"), "--colour or --layout"),
        (RGB, DataOptions(dtype="uint8"), "is uint8, the model takes float32"),
        (RGB, DataOptions(resize="8x8"), r"is \[1, 3, 8, 8\], the model takes \[1,3,4,6\]"),
        (RGB, DataOptions(resize="big"), "'big' is not a size"),
        (RGB, DataOptions(resize="0x5"), "resize.width: Input should be greater than or equal to 1"),
        (RGB, DataOptions(mean="1,2"), "mean has 2 numbers, the image 3 channels"),
        (RGB, DataOptions(mean="a"), "--mean: 'a' is not a number"),
        (RGB, DataOptions(std="0"), "std cannot be 0"),
        (RGB, DataOptions(scale="1/0"), "--scale: '1/0' is not a number"),
        (RGB, DataOptions(colour="cmyk"), "colour: Input should be 'rgb', 'bgr' or 'grey'"),
        (RGB, DataOptions(preprocess=Path("none.toml")), "is not a file"),
    ],
)
def test_steps_that_do_not_fit_are_said(tmp_path: Path, port: Port, options: DataOptions, says: str) -> None:
    write_image(tmp_path / "a.png", gradient())
    with pytest.raises(ConversionError, match=says) as caught:
        open_data(tmp_path, [port], options).load(0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[image", "is not TOML"),
        ("[picture]\n", "'picture' is not known"),
        ("[image]\nsize = 3\n", "'size' is not known, choose among colour"),
        ("image = 3\n", r"image is a table, written \[image\]"),
        ("input = 'y'\n", "input is 'y', but the model's inputs are: x"),
        ("\udcff", "is not TOML"),
    ],
)
def test_a_file_of_steps_that_is_wrong_is_said(tmp_path: Path, text: str, says: str) -> None:
    write_image(tmp_path / "i" / "a.png", gradient())
    (tmp_path / "s.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadOption, match=says):
        open_data(tmp_path / "i", [RGB], DataOptions(preprocess=tmp_path / "s.toml"))


def test_folders_and_tables_that_are_wrong_are_said(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", gradient())
    write_lines(tmp_path / "labels.csv", ["b.png,1"])
    with pytest.raises(SampleMismatch, match=r"labels\.csv has no label for 'a\.png'"):
        open_data(tmp_path, [RGB], DataOptions())
    write_lines(tmp_path / "labels.csv", ["a.png,1,2"])
    with pytest.raises(SampleMismatch, match="line 1 has 3 values, expected file,label"):
        open_data(tmp_path, [RGB], DataOptions())
    write_lines(tmp_path / "labels.csv", ["a.png,zebra"])
    with pytest.raises(SampleMismatch, match="'zebra' is not in the file given with --labels"):
        open_data(tmp_path, [RGB], DataOptions(), ["ant", "bee"])
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(UnreadableSample, match="not a CSV file in UTF-8"):
        open_data(tmp_path, [RGB], DataOptions())
    np.save(tmp_path / "a.npy", gradient())
    with pytest.raises(NoSamples, match="holds arrays and images: keep one kind"):
        open_data(tmp_path, [RGB], DataOptions())
    pair = [RGB, Port("mask", "float32", (1, 2))]
    with pytest.raises(SampleMismatch, match=r"2 inputs \(x, mask\), files of one kind give only one"):
        open_data(tmp_path / "a.png", pair, DataOptions())
    with pytest.raises(SampleMismatch, match="1 samples do not fill one batch of 4"):
        open_data(tmp_path / "a.png", [Port("x", "float32", (4, 3, 4, 6))], DataOptions())


def test_digits_as_files_are_the_digits_as_arrays(tmp_path: Path) -> None:
    from tests.converter.graphs import DIGITS

    folder = write_png_digits(tmp_path / "digits", 90)
    data = read_data(folder, [Port("x", "float32", (None, 1, 32, 32))], seed=0)
    with np.load(DIGITS / "digits32.npz") as digits:
        images, labels = digits["test"], digits["test_labels"]
    assert data.labels is not None
    assert len(data.feeds) == 90
    for feed, name, label in zip(data.feeds, data.names, data.labels, strict=True):
        number = int(Path(name).stem)
        np.testing.assert_array_equal(feed["x"][0, 0], (images[number] / 255).astype(np.float32))
        assert label.tolist() == [labels[number]]
