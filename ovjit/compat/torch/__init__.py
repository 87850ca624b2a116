"""`import ovjit.torch` makes backend="openvino" and backend="ovjit" known to torch.compile."""

from ovjit.compat.frontend.pytorch.torchdynamo import backend as backend

backend.register()
