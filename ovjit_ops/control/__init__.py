"""Operations with bodies: If, Loop, TensorIterator."""
