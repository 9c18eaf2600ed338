"""The formats that runs leave Python in: each builds a file, and opens it with what its users will open it with."""

import io
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lungdet.errors import InputError
from lungdet.inference.graph import OUTPUTS, Graph

AXES = {"image": {0: "images", 2: "height", 3: "width"}, "length": {0: "cases"}, "when": {0: "images"}}
"""The axes of each input that may have any length, and what ONNX calls them."""
KEY = "lungdet"
"""What the metadata stand under, as JSON: in ONNX of its own properties, in torch's formats of their extra files."""

Predictor = Callable[[dict[str, np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""Inputs by name -> log-odds and calibrated probabilities (N, L)."""


class Format(NamedTuple):
    """How a graph becomes a file.

    Attributes:
        suffix: of its name.
        build: the graph in this format, made with inputs that serve as an example.
        pack: the bytes of the file, with metadata.
        open: the file's own runtime, and the metadata that it reads there.
    """

    suffix: str
    build: Callable[[Graph, Sequence[Tensor]], Any]
    pack: Callable[[Any, dict], bytes]
    open: Callable[[bytes], tuple[Predictor, dict]]


def exported(graph: Graph, example: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """The graph as torch.export has it, without the places in source files that it remembers."""
    shapes = tuple(dict.fromkeys(AXES[name], torch.export.Dim.DYNAMIC) for name in graph.inputs)
    shapes += (None,) * (len(example) - len(shapes))
    with torch.no_grad(), quiet():
        program = torch.export.export(graph, tuple(example), dynamic_shapes=shapes, strict=False)
    for module in program.graph_module.modules():  # what is computed without gradients is a graph within
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)
    return program


def _onnx(graph: Graph, example: Sequence[Tensor]) -> Any:
    require_onnx()
    with quiet():
        program = torch.onnx.export(
            exported(graph, example),
            dynamo=True,
            input_names=graph.inputs,
            output_names=OUTPUTS,
            external_data=False,
            verbose=False,
        )
    proto = program.model_proto
    names = {
        value.type.tensor_type.shape.dim[axis].dim_param: name
        for value in proto.graph.input
        for axis, name in AXES[value.name].items()
    }
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]:
        for length in value.type.tensor_type.shape.dim:
            if length.dim_param in names:
                length.dim_param = names[length.dim_param]
    return proto


def _pack_onnx(proto: Any, metadata: dict) -> bytes:
    packed = type(proto)()
    packed.CopyFrom(proto)
    for node in packed.graph.node:
        del node.metadata_props[:]  # where in which source file it was made
    packed.metadata_props.add(key=KEY, value=json.dumps(metadata))
    return packed.SerializeToString()


def _open_onnx(data: bytes) -> tuple[Predictor, dict]:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    metadata = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    return lambda inputs: tuple(session.run(list(OUTPUTS), inputs)), metadata


def _torchscript(graph: Graph, example: Sequence[Tensor]) -> torch.jit.ScriptModule:
    with torch.no_grad(), quiet():  # numbers that become constants, such as the grid's, are none that vary
        return torch.jit.trace(graph, tuple(example), check_trace=False)


def _pack_torchscript(module: torch.jit.ScriptModule, metadata: dict) -> bytes:
    file = io.BytesIO()
    with quiet():
        torch.jit.save(module, file, _extra_files={KEY: json.dumps(metadata)})
    return _without_places(file)


def _without_places(file: io.BytesIO) -> bytes:
    """A TorchScript file without the paths of the source files that its layers were made in, which nothing reads."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(buffer, "w") as copy:
        for record in archive.infolist():
            if not record.filename.endswith(".debug_pkl"):
                copy.writestr(record, archive.read(record))
    return buffer.getvalue()


def _open_torchscript(data: bytes) -> tuple[Predictor, dict]:
    extra = {KEY: ""}
    with quiet():
        module = torch.jit.load(io.BytesIO(data), _extra_files=extra)
    return _of_torch(module), json.loads(extra[KEY])


def _pack_exported(program: torch.export.ExportedProgram, metadata: dict) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={KEY: json.dumps(metadata)})
    return file.getvalue()


def _open_exported(data: bytes) -> tuple[Predictor, dict]:
    extra = {KEY: ""}
    return _of_torch(torch.export.load(io.BytesIO(data), extra_files=extra).module()), json.loads(extra[KEY])


FORMATS = {
    "onnx": Format(".onnx", _onnx, _pack_onnx, _open_onnx),
    "torchscript": Format(".pt", _torchscript, _pack_torchscript, _open_torchscript),
    "exported": Format(".pt2", exported, _pack_exported, _open_exported),
}


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block torch and ONNX keep to themselves what they deprecate and which constants they merge."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def require_onnx() -> None:
    """Passes only where the packages are installed that write and read ONNX.

    Raises:
        InputError: they are not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"format=onnx: {error}; pip install 'lungdet[export]', or take another format") from error


def _of_torch(module: Callable[..., tuple[Tensor, Tensor]]) -> Predictor:
    def predict(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            outputs = module(*map(torch.from_numpy, inputs.values()))
        return outputs[0].numpy(), outputs[1].numpy()

    return predict
