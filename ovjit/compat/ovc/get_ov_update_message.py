"""Message of `ovc` after a conversion."""


def get_compression_message() -> str:
    """The note that weights are written as f16, and how to keep them as they are."""
    return (
        "[ INFO ] Weights of f32 are written as FP16, rounded. Where that costs accuracy, keep them as they "
        "are by compress_to_fp16=False."
    )
