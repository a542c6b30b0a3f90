"""ONNX Runtime on the network of `haar bench inference --peer`: the same weights, one thread.

python inference.py FILE SECONDS
FILE is safetensors: w1 b1 ... w5 b5, and x and y of each batch size as x1 y1, x32 y32 ...
Prints one JSON object. Needs numpy, onnx, onnxruntime.
"""

import json
import struct
import sys
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper


def load(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
    }


def session(tensors):
    names = [f"{kind}{layer}" for layer in range(1, 6) for kind in "wb"]
    weights = [numpy_helper.from_array(tensors[name], name) for name in names]
    nodes, last = [], "x"
    for layer in (1, 2, 3):
        inputs = [last, f"w{layer}", f"b{layer}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{layer}"], strides=[2], pads=[3, 3]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        last = f"r{layer}"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w4", "b4"], ["d4"], transB=1),
        helper.make_node("Relu", ["d4"], ["r4"]),
        helper.make_node("Gemm", ["r4", "w5", "b5"], ["y"], transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 200])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    graph = helper.make_graph(nodes, "cnn", [x], [y], weights)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def rate(run, x, seconds):
    """The best of five rounds: other programs on the machine only ever make a round slower."""
    best = 0.0
    for _ in range(5):
        done, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds / 5:
            run(x)
            done += len(x)
        best = max(best, done / (time.perf_counter() - begin))
    return best


def main():
    tensors = load(sys.argv[1])
    network = session(tensors)
    batches = sorted(int(name[1:]) for name in tensors if name[0] == "x")
    rates, difference = {}, 0.0
    for batch in batches:
        x = np.ascontiguousarray(tensors[f"x{batch}"])
        (y,) = network.run(None, {"x": x})
        difference = max(difference, float(np.abs(y - tensors[f"y{batch}"]).max()))
        rates[str(batch)] = rate(lambda x: network.run(None, {"x": x}), x, float(sys.argv[2]))
    peer = f"onnxruntime {ort.__version__}"
    print(json.dumps({"peer": peer, "inferences_per_s": rates, "largest_difference": difference}))


main()
