"""Decoding of picture files."""

import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor


def image_decoder(encoded: Tensor, *, pixel_format: str = "RGB") -> Tensor:
    """ONNX ImageDecoder: bytes of a picture file to uint8 [height, width, channels], by Pillow."""
    picture: Any = Image.open(io.BytesIO(bytes(encoded.cpu().tolist())))
    picture = picture.convert("L" if pixel_format == "Grayscale" else "RGB")
    channels = 1 if pixel_format == "Grayscale" else 3
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = pixels.reshape(picture.height, picture.width, channels)
    return pixels.flip(2) if pixel_format == "BGR" else pixels
