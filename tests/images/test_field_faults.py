"""Image files as people really have them: sound ones that decoders refuse, and others that need the true reason."""

from __future__ import annotations

import io
import os
import socket
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from thirtytwo.errors import ImageError
from thirtytwo.images import decode as module
from thirtytwo.images.content import load_hashed
from thirtytwo.images.decode import decode, format_of, load_image, read_header, read_size

NOISE = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
LONG = 2_000_000


def saved(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(*chunks: tuple[bytes, bytes], last: bool = False) -> bytes:
    """`NOISE` as PNG with these chunks, before the pixels or after them."""
    image = saved(NOISE, "PNG")
    at = image.index(b"IEND" if last else b"IDAT") - 4
    added = b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )
    return image[:at] + added + image[at:]


def jpeg_with_exif(tags: bytes) -> bytes:
    """`NOISE` as JPEG with the bytes of an EXIF block that announces more than it holds."""
    return saved(NOISE, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + tags)


def tiff_with_two_planes() -> bytes:
    """`NOISE` as TIFF whose tag 284, a single number, announces two."""
    data = bytearray(saved(NOISE, "TIFF"))
    at = data.index(b"\x1c\x01\x03\x00\x01\x00\x00\x00")
    data[at + 4] = 2
    return bytes(data)


def malformed_mpo() -> bytes:
    image, block = saved(NOISE, "JPEG"), b"MPF\0II*\0\x08\0\0\0\x01\0\0\0"
    return image[:2] + b"\xff\xe2" + (len(block) + 2).to_bytes(2, "big") + block + image[2:]


@pytest.mark.parametrize(
    "content",
    [
        jpeg_with_exif(b"\x05\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"),
        jpeg_with_exif(b"\x02\0\x0f\x01\x02\0\xff\xff\0\0\xf0\xff\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
        tiff_with_two_planes(),
        malformed_mpo(),
    ],
    ids=["EXIF cut short", "EXIF text too long", "TIFF tag", "MPO"],
)
def test_warnings_of_the_decoder_name_the_file_once(content, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "_reported_warnings", set())
    for name in ("first.img", "second.img"):
        (tmp_path / name).write_bytes(content)
    before = warnings.showwarning
    with warnings.catch_warnings(record=True) as raw:
        warnings.simplefilter("always")
        for _ in range(2):
            for name in ("first.img", "second.img"):
                assert load_image(tmp_path / name, 32).pixels.shape == (32, 32, 3)
                assert decode(content).shape == (32, 32, 3)
    assert not raw
    assert warnings.showwarning is before
    assert caplog.messages
    assert all(message.startswith(str(tmp_path / "first.img")) and "\n" not in message for message in caplog.messages)
    assert len(caplog.messages) <= 2
    assert not any(words in message for message in caplog.messages for words in ("Skipping tag", "Expecting to read"))


def test_large_images_and_palettes_give_no_warning(monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    palette = saved(Image.fromarray(NOISE).quantize(4), "PNG", transparency=bytes([0, 128, 255, 255]))
    for content in (palette, saved(Image.fromarray(NOISE).quantize(4), "GIF", transparency=1)):
        assert decode(content).shape == (32, 32, 3)
    assert not recwarn.list


def test_warnings_of_other_threads_are_left_alone():
    """While one thread decodes, another one's warnings are shown as usual."""
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: shown.append(str(message))
        with module._named_warnings("one.png"):
            other = threading.Thread(target=lambda: warnings.warn("of another thread", stacklevel=1))
            other.start()
            other.join()
    assert shown == ["of another thread"]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    "chunks",
    [
        [(b"tEXt", b"Comment\0" + b"a" * LONG)],
        [(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * LONG))],
        [(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"a" * LONG))],
        [(b"iTXt", b"Comment\0\0\0\0\0" + b"a" * LONG)],
        [(b"iCCP", b"profile\0\0" + zlib.compress(b"a" * LONG))],
        [(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 1_000_000))] * 70,
    ],
    ids=["text", "packed text", "packed international text", "international text", "profile", "many"],
)
def test_long_texts_and_profiles_of_a_png_do_not_matter(chunks, last):
    np.testing.assert_array_equal(decode(png_with(*chunks, last=last)), NOISE)
    assert load_hashed(png_with(*chunks, last=last), 32)[1] == load_hashed(saved(NOISE, "PNG"), 32)[1]


def test_short_texts_are_kept_since_they_may_hold_the_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "\nexif\n" + f"{len(exif.tobytes()):8}\n" + exif.tobytes().hex(), zip=True)
    tall = NOISE[:, :20]
    assert decode(saved(tall, "PNG", pnginfo=info)).shape == (20, 32, 3)


def mif1(data: bytes) -> bytes:
    """An AVIF whose major brand is `mif1`, with `avif` among the compatible brands."""
    size = int.from_bytes(data[:4], "big")
    assert b"avif" in data[16:size]
    return data[:8] + b"mif1" + data[12:]


def test_an_avif_is_recognized_by_its_compatible_brands():
    data = saved(NOISE, "AVIF", quality=100)
    np.testing.assert_array_equal(decode(mif1(data)), decode(data))
    assert load_hashed(mif1(data), 32)[0].pixels.shape == (32, 32, 3)


def heic_head(*brands: bytes) -> bytes:
    major, *others = brands
    box = b"ftyp" + major + b"\0\0\0\0" + b"".join(others)
    return (len(box) + 4).to_bytes(4, "big") + box + b"\0" * 300


@pytest.mark.parametrize("brands", [(b"heic", b"mif1"), (b"mif1", b"heic"), (b"msf1", b"hevc"), (b"heix",)])
def test_heic_is_named_with_the_install_line(brands, monkeypatch):
    monkeypatch.setitem(Image.OPEN, module.HEIF, None)
    del Image.OPEN[module.HEIF]
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif.HeifImagePlugin", None)
    with pytest.raises(ImageError) as caught:
        decode(heic_head(*brands))
    assert "HEIC" in caught.value.message
    assert "pip install pillow-heif" in (caught.value.fix or "")


def test_heic_is_read_where_the_library_is_installed():
    library = pytest.importorskip("pillow_heif")
    library.register_heif_opener()
    assert decode(saved(NOISE, "HEIF")).shape == NOISE.shape


def many_band_tiff(bands: int) -> bytes:
    """A TIFF with this many channels of 8 bits."""
    body = b"\x07" * (4 * 4 * bands)
    bits = np.full(bands, 8, dtype="<u2").tobytes()
    data_at, bits_at = 8, 8 + len(body)
    entries = [
        (256, 3, 1, 4), (257, 3, 1, 4), (258, 3, bands, bits_at), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, data_at), (277, 3, 1, bands), (278, 3, 1, 4), (279, 4, 1, len(body)),
    ]  # fmt: skip
    directory = len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        directory += value.to_bytes(4, "little")
    start = bits_at + len(bits)
    return b"II*\0" + start.to_bytes(4, "little") + body + bits + directory + b"\0\0\0\0"


@pytest.mark.parametrize("bands", [6, 13])
def test_too_many_channels_are_named_without_advice_to_delete(bands):
    with pytest.raises(ImageError) as caught:
        decode(many_band_tiff(bands))
    assert f"{bands} channels" in caught.value.message
    assert "elete" not in str(caught.value)


RAMP = np.linspace(0, 1, 32 * 32).reshape(32, 32)


def twelve_bit_tiff() -> bytes:
    """A TIFF of 12 bits per sample, two samples in three bytes."""
    values = np.rint(RAMP * 4095).astype(np.uint16).reshape(-1, 2)
    first, second = values[:, 0], values[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1).astype(np.uint8).tobytes()
    entries = [
        (256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 32), (279, 4, 1, len(packed)),
    ]  # fmt: skip
    directory = len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        directory += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        directory += value.to_bytes(4, "little")
    return b"II*\0" + (8 + len(packed)).to_bytes(4, "little") + packed + directory + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        (saved(Image.fromarray(np.rint(RAMP * 255).astype(np.int32)), "TIFF"), "8 bits"),
        (saved(Image.fromarray(np.rint(RAMP * 4095).astype(np.int32)), "TIFF"), "12 bits"),
        (saved(Image.fromarray(np.rint(RAMP * 65535).astype(np.int32)), "TIFF"), ""),
        (saved(np.rint(RAMP * 4095).astype(np.uint16), "PNG"), "12 bits"),
        (saved(np.rint(RAMP * 255).astype(np.uint16), "PNG"), "8 bits"),
        (saved(np.rint(RAMP * 65535).astype(np.uint16), "PNG"), ""),
        (saved(RAMP.astype(np.float32), "TIFF"), ""),
        (twelve_bit_tiff(), ""),
    ],
    ids=["int32 8", "int32 12", "int32 16", "png 12", "png 8", "png 16", "float", "tiff 12"],
)
def test_more_than_8_bits_are_scaled_by_what_the_file_holds_and_it_is_reported_once(data, reported, caplog):
    module._reported_depths.clear()
    for _ in range(2):
        found = decode(data, "x.tif")
        assert np.abs(found[..., 0].astype(int) - np.rint(RAMP * 255)).max() <= 1
    assert [reported in message for message in caplog.messages] == ([True] if reported else [])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_values_that_are_not_in_range_are_named(bad):
    values = RAMP.astype(np.float32)
    values[3, 4] = bad
    with pytest.raises(ImageError) as caught:
        decode(saved(values, "TIFF"), "x.tif")
    assert "nan to" not in str(caught.value)
    assert ("NaN" in str(caught.value)) == bool(np.isnan(bad))


def test_a_large_jpeg_is_decoded_at_a_smaller_scale(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 20_000)
    plain, progressive = (saved(Image.new("RGB", (300, 220), "red"), "JPEG", progressive=one) for one in (False, True))
    assert tuple(load_image(plain, 8).pixels[4, 4]) == (254, 0, 0)
    assert (load_image(plain, 8).width, read_size(plain), read_header(plain).width) == (300, (300, 220), 300)
    for refused in (progressive, saved(Image.new("RGB", (300, 220)), "PNG")):
        with pytest.raises(ImageError) as caught:
            load_image(refused, 8)
        assert "THIRTYTWO_MAX_PIXELS=66000" in (caught.value.fix or "")
    with pytest.raises(ImageError):
        decode(plain)


def test_the_limit_on_pixels_can_be_raised(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    with pytest.raises(ImageError):
        decode(saved(NOISE, "PNG"))
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "1024")
    np.testing.assert_array_equal(decode(saved(NOISE, "PNG")), NOISE)
    monkeypatch.setenv("THIRTYTWO_MAX_PIXELS", "many")
    with pytest.raises(ImageError, match="THIRTYTWO_MAX_PIXELS"):
        decode(saved(NOISE, "PNG"))


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_what_is_not_a_file_is_refused_instead_of_waited_for(kind, tmp_path, monkeypatch):
    place = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # its path must be short
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("x.png")
    else:
        place.symlink_to("/dev/zero")
    for read in (decode, read_size, lambda one: load_hashed(one, 32)):
        with pytest.raises(ImageError, match=kind):
            read(place)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (saved(NOISE, "JPEG"), "JPEG"),
        (saved(NOISE, "AVIF"), "AVIF"),
        (heic_head(b"heic", b"mif1"), "HEIF"),
        (heic_head(b"isom", b"mp42"), None),
        (b"not an image", None),
        (b"", None),
    ],
)
def test_format_of(data, expected):
    assert format_of(data[: module.HEAD_BYTES]) == expected


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_libtiff_does_not_write_to_stderr(compression, capfd, tmp_path):
    data = bytearray(saved(NOISE, "TIFF", compression=compression))
    data[200:260] = b"\xff" * 60
    (tmp_path / "x.tif").write_bytes(data)
    for read in (decode, lambda file: load_image(Image.open(file), 8)):
        with pytest.raises(ImageError):
            read(tmp_path / "x.tif")
    assert capfd.readouterr().err == ""


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.png").write_bytes(saved(NOISE, "PNG"))
    np.testing.assert_array_equal(decode("~/x.png"), NOISE)
