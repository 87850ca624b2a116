"""llama.cpp's files of language models -> Model: a decoder with state."""
