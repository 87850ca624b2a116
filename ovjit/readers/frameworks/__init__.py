"""Models of TensorFlow and Paddle, through the packages that write them as ONNX."""
