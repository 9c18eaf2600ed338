"""ONNX files of fewer bits a number: half as large in fp16, a quarter in int8, at a loss that is to be measured."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lungdet.inference.formats import quiet

PRECISIONS = ("fp32", "fp16", "int8")
_SCOPES = "pkg.torch.onnx.name_scopes"


def half(proto: Any) -> Any:
    """Backbone and sequence layers in fp16; resizing, head and outputs stay in fp32, or similar images would tie."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(proto, keep_io_types=True, node_block_list=_outside(proto, inner=True))


def eight_bits(proto: Any, inputs: Iterable[dict[str, np.ndarray]]) -> Any:
    """Convolutions and matrix products in int8, of ranges that they have on these inputs; LSTM layers stay in fp32."""
    import onnx
    from onnxruntime import quantization

    batches = iter(inputs)

    class Calibration(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    with TemporaryDirectory() as folder:  # the quantiser reads and writes files alone
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(proto, source)
        outside = _outside(proto, inner=False)
        with quiet():
            quantization.quantize_static(source, target, Calibration(), per_channel=True, nodes_to_exclude=outside)
        return onnx.load(target)


def _outside(proto: Any, inner: bool) -> list[str]:
    """Names of the nodes outside of the networks, or where `inner` outside of all their layers but the head."""
    names = []
    for node in proto.graph.node:
        scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
        layers = [scope for scope in scopes.replace("'", "").strip("[]").split(", ") if scope.startswith("networks.")]
        if inner:
            layers = [scope for scope in layers if scope.count(".") > 1 and scope.split(".")[2] != "head"]
        if not layers:
            names.append(node.name)
    return names
