"""Reader of ONNX files: opset 7 to the newest, com.microsoft's operators of exporters and quantisers.

`reader.read_onnx` makes a Model; a row or short function for each operator is in the modules of families.
"""
