"""Colorizes a photo with the one graph that `colorgan export light --onnx photo.onnx` writes;
colorgan itself is not needed.

python colorize.py photo.onnx grey.jpg color.png     (pip install onnxruntime numpy Pillow)"""
import sys

import numpy as np
import onnxruntime as ort
from PIL import Image, ImageOps

graph, source, target = sys.argv[1:]
session = ort.InferenceSession(graph)
photo = ImageOps.exif_transpose(Image.open(source)).convert('RGB')
colour, = session.run(None, {'photo': np.asarray(photo)}) # bytes, (rows, columns, 3), both ways
Image.fromarray(colour).save(target)
