"""Random changes of good files."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

from corpus.parts import DATA, NUMBERS, saved, zipped
from corpus.safetensors_files import tensors_file


def mutate_bytes(content, others, rng):
    """Change some bytes."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place, size = int(rng.integers(len(content) + 1)), int(2 ** rng.integers(0, 8))
        other = others[rng.integers(len(others))]
        match rng.integers(8):
            case 0 if place < len(content):
                content[place] ^= 1 << rng.integers(8)
            case 1 if place < len(content):
                content[place] = rng.choice([0, 1, 127, 128, 255])
            case 2:
                content[place:place] = rng.bytes(size)
            case 3:
                del content[place : place + size]
            case 4:
                content[place:place] = content[place : place + size]
            case 5:
                width = int(rng.choice([2, 4, 8]))
                number = NUMBERS[rng.integers(len(NUMBERS))] % 2 ** (8 * width)
                content[place : place + width] = number.to_bytes(width, "little")
            case 6 if rng.integers(4) == 0:
                del content[place:]
            case _:
                start = rng.integers(len(other) + 1)
                content[place : place + size] = other[start : start + size]
    return bytes(content)


def mutate_member(content, others, rng):
    """Change a member of a zip file, mostly its bytes; the file is then whole again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        listed = [(name, archive.read(name)) for name in archive.namelist()]
    # The last member is the header of a saved network, the first the pickle of PyTorch's file.
    place = int(rng.choice([0, -1, rng.integers(len(listed))]))
    name, member = listed[place]
    match rng.integers(10):
        case 0:
            del listed[place]
        case 1:
            listed.append((name, listed[rng.integers(len(listed))][1]))
        case 2:
            other = mutate_bytes(name.encode(), [b"../__jacrot__.npy"], rng)
            listed[place] = other.decode("latin1").replace("\0", "0") or "empty", member
        case _:
            listed[place] = name, mutate_bytes(member, [other for _, other in listed], rng)
    return zipped(listed)


def mutate_json(value, rng, odds):
    """Change some parts of what JSON holds."""
    if rng.random() < odds:
        texts = ["", "relu", "0.weight", "Dense", "Sequential", "Function", "identity", "causal"]
        choices = [None, True, *texts, [], {}, [value] * 2, {"array": "0.bias"}, {"layer": "Dense"}]
        choices += [0.5, -1.0, 1e308, float("nan"), float("inf"), "9" * 400, 10**400, *NUMBERS]
        return choices[rng.integers(len(choices))]
    if isinstance(value, list):
        items = [mutate_json(item, rng, odds) for item in value]
        return items[::-1] if rng.random() < odds else items
    if isinstance(value, dict):
        items = {key: mutate_json(item, rng, odds) for key, item in value.items()}
        if items and rng.random() < odds:
            name = str(rng.choice(list(items)))
            items[name] = items.pop(next(iter(items)))
        return items
    return value


def mutate_network(content, others, rng):
    """Change the header of a saved network."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    text = json.dumps(mutate_json(json.loads(str(arrays["__jacrot__"])), rng, 0.04))
    if rng.random() < 0.2:
        text = mutate_bytes(text.encode(), [text.encode()], rng).decode("latin1")
    return saved(np.savez, **arrays | {"__jacrot__": text})


def mutate_header(content, others, rng):
    """Change the header of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header and rng.integers(2):
        text = header["__metadata__"]["__jacrot__"]
        header["__metadata__"]["__jacrot__"] = json.dumps(mutate_json(json.loads(text), rng, 0.04))
        return tensors_file(header, content[end:])
    return tensors_file(mutate_json(header, rng, 0.05), content[end:])


def mutate_message(content, others, rng):
    """Change some fields of a protobuf message."""
    import onnx

    model = onnx.load_model_from_string(content)
    for _ in range(rng.integers(1, 4)):
        mutate_field(model.graph, rng)
    return model.SerializeToString()


def mutate_field(message, rng):
    """Change a field of a message, or of one inside it."""
    fields = message.ListFields()
    if not fields:
        return
    descriptor, value = fields[rng.integers(len(fields))]
    repeated = hasattr(value, "append")
    place = int(rng.integers(len(value))) if repeated else 0
    if descriptor.message_type is None:
        words = "x y a W Add Cast Reshape MatMul Mul Softmax Transpose Flatten Clip SAME_UPPER"
        old = value[place] if repeated else value
        new = NUMBERS[rng.integers(len(NUMBERS))]
        if isinstance(old, str):
            new = str(rng.choice([*words.split(), "ReduceMean", "AveragePool", ""]))
        elif isinstance(old, bytes):
            new = mutate_bytes(old, [DATA], rng)
        elif descriptor.enum_type is not None:
            new = int(rng.choice(list(descriptor.enum_type.values_by_number)))
        elif descriptor.cpp_type != descriptor.CPPTYPE_INT64:
            new = new % 2**31
        if repeated:
            value[place] = new
        else:
            setattr(message, descriptor.name, new)
    elif repeated and rng.random() < 0.2:
        value.append(value[place])
        del value[int(rng.integers(len(value)))]
    else:
        mutate_field(value[place] if repeated else value, rng)


MUTATIONS = {
    "npz": (mutate_bytes, mutate_member, mutate_member),
    "saved network": (mutate_bytes, mutate_member, mutate_network, mutate_network),
    "safetensors": (mutate_bytes, mutate_header, mutate_header),
    "PyTorch": (mutate_bytes, mutate_member, mutate_member),
    "ONNX": (mutate_bytes, mutate_message, mutate_message),
}


def mutate(kind, goods, rng):
    """Build a good file into one that may be bad."""
    content = goods[rng.integers(len(goods))]
    mutation = MUTATIONS[kind][rng.integers(len(MUTATIONS[kind]))]
    if mutation is mutate_member and content[:2] != b"PK":
        mutation = mutate_bytes
    return mutation(content, goods, rng)
