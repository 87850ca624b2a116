"""Operators of ONNX domains beside the standard's: com.microsoft, ai.onnx.ml, org.openvinotoolkit.

They are imported when a model has such a domain (`ovjit.readers.onnx.registry`). Another
package adds operators the same way: it registers them by `onnx_op`, and has an entry point in `ovjit.onnx`.
"""

from ovjit.readers.onnx_contrib import attention as attention
from ovjit.readers.onnx_contrib import blocks as blocks
from ovjit.readers.onnx_contrib import choices as choices
from ovjit.readers.onnx_contrib import decoders as decoders
from ovjit.readers.onnx_contrib import fusions as fusions
from ovjit.readers.onnx_contrib import layers as layers
from ovjit.readers.onnx_contrib import linear as linear
from ovjit.readers.onnx_contrib import machines as machines
from ovjit.readers.onnx_contrib import ml as ml
from ovjit.readers.onnx_contrib import openvino_layers as openvino_layers
from ovjit.readers.onnx_contrib import quantization as quantization
from ovjit.readers.onnx_contrib import tokenizer as tokenizer
from ovjit.readers.onnx_contrib import trees as trees
