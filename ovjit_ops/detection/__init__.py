"""Detection: regions of interest, non-maximum suppression, prior boxes, and the layers around them."""
