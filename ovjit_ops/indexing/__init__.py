"""Selection and replacement of elements by indices, searches, bags of embeddings, scans along an axis,
TopK."""
