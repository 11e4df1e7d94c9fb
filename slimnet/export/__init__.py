"""Networks for elsewhere: ONNX, torch.export programs, safetensors; checked on the test split."""

from slimnet.export.onnx import export_onnx
from slimnet.export.program import export_program

__all__ = ["export_onnx", "export_program"]
