"""What `ovc` may say after a conversion."""


def get_compression_message() -> str:
    """That weights are written in f16, and how not to."""
    return (
        "[ INFO ] Weights of f32 are written as FP16, rounded. Where that costs accuracy, keep them as they "
        "are by compress_to_fp16=False."
    )
