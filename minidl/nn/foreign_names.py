"""Names that other libraries or earlier versions have, each with what to write instead.

Setting such an attribute would do nothing, so it is refused.
"""

from __future__ import annotations

# What subclasses may define, by the name of earlier versions.
RENAMED_OF_LAYERS = {
    "passing_names": "it is called transient_state_names",
    "lasting_state": "it is called saved_state",
    "adopt_children": "it is called assign_paths",
}
RENAMED_OF_OPTIMIZERS = {"looked_at": "it is called register_with_recorder"}
PARAMETER_ATTRIBUTES = {
    "requires_grad": "set parameter.frozen, before the optimizer is built",
    "trainable": "set parameter.frozen, before the optimizer is built",
    "values": "set parameter.data",
}
LAYER_ATTRIBUTES = {
    "requires_grad": "call layer.freeze(), before the optimizer is built",
    "trainable": "call layer.freeze(), before the optimizer is built",
    "frozen": "call layer.freeze(), before the optimizer is built",
    **RENAMED_OF_LAYERS,
}
LAYER_METHODS = {
    "load": "write minidl.load(path, into=model)",
    "load_weights": "write minidl.load(path, into=model)",
    "load_state_dict": "write minidl.load(path, into=model), or of a file or dict of PyTorch's "
    "minidl.torch.load_state_dict(source, into=model)",
    "save_weights": "write minidl.save(model, path)",
    "state_dict": "write minidl.save(model, path), or minidl.torch.state_dict(model) for PyTorch's",
    "compile": "write trainer = minidl.Trainer(model, loss, optimizer)",
    "fit": "write minidl.Trainer(model, loss, optimizer).fit(X, y, epochs)",
    "evaluate": "write minidl.Trainer(model, loss, optimizer).evaluate(X, y)",
    "predict": "write minidl.Trainer(model, loss, optimizer).predict(X), or model(x)",
    "summary": "write print(layer); models such as Sequential have one",
    "float": "write model.astype(np.float32)",
    "double": "write model.astype(np.float64)",
    "to": "write model.astype(dtype); minidl computes on the CPU",
    "apply": "go over model.layers()",
    "modules": "go over model.layers()",
    "requires_grad_": "call model.freeze(), before the optimizer is built",
}


def refuse_attribute(owner: str, name: str, known: dict[str, str]) -> None:
    """Raise AttributeError if the name is one of these, with what to write instead."""
    if name in known:
        raise AttributeError(f"{owner} has no {name}, setting it would do nothing: {known[name]}")


def refuse_renamed(cls: type, renamed: dict[str, str]) -> None:
    """Raise AttributeError if a class defines one of these names, which are called otherwise."""
    for name in vars(cls):
        refuse_attribute(cls.__name__, name, renamed)


def advice_for_method(name: str) -> str:
    """Return what to write instead of a method of another library, as the end of a message."""
    return f"; {LAYER_METHODS[name]}" if name in LAYER_METHODS else ""
