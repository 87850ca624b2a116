"""Values: tensors, element types, shapes, layouts, and the memory under them."""
