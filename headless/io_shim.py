"""The subset of ComfyUI's V3 node API that our nodes use, for places without ComfyUI.

Every argument that our nodes may pass to an input is listed once, with the key under which ComfyUI publishes it in /object_info; any other
argument is a TypeError, as in ComfyUI. tests/headless/test_io_conformity.py compares this module with ComfyUI itself where COMFYUI_PATH is set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"


class FolderType(str, Enum):
    input = "input"
    output = "output"
    temp = "temp"


class UploadType(str, Enum):
    image = "image_upload"
    audio = "audio_upload"
    video = "video_upload"
    model = "file_upload"


class Hidden(str, Enum):
    unique_id = "UNIQUE_ID"
    prompt = "PROMPT"
    extra_pnginfo = "EXTRA_PNGINFO"
    dynprompt = "DYNPROMPT"


class Input:
    """One declared input. `published` maps each accepted argument to its key in /object_info."""

    io_type: str = "*"
    published: dict[str, str] = {}
    fixed: dict[str, Any] = {}

    def __init__(self, id: str, *, optional: bool = False, extra_dict: dict[str, Any] | None = None, **arguments: Any) -> None:
        unknown = sorted(set(arguments) - set(self.published))
        if unknown:
            raise TypeError(f"input {id!r} of type {self.io_type} does not take {', '.join(unknown)}")
        self.id = id
        self.optional = optional
        self.extra_dict = extra_dict or {}
        for name in self.published:
            setattr(self, name, arguments.get(name, self.fixed.get(name)))

    def as_dict(self) -> dict[str, Any]:
        """The entry in /object_info beside the type: the arguments that were given."""
        given = {key: getattr(self, name) for name, key in self.published.items()}
        return {key: value for key, value in {**given, **self.extra_dict}.items() if value is not None}


class Output:
    """One declared output."""

    io_type: str = "*"

    def __init__(self, id: str | None = None, display_name: str | None = None, tooltip: str | None = None, is_output_list: bool = False) -> None:
        self.id = id
        self.display_name = display_name or id
        self.tooltip = tooltip
        self.is_output_list = is_output_list


_SOCKET = {"display_name": "display_name", "tooltip": "tooltip", "lazy": "lazy", "raw_link": "rawLink", "advanced": "advanced"}
_WIDGET = {**_SOCKET, "default": "default", "socketless": "socketless", "force_input": "forceInput"}
_NUMBER = {**_WIDGET, "min": "min", "max": "max", "step": "step"}


def _kind(io_type: str, published: dict[str, str] = _SOCKET, fixed: dict[str, Any] | None = None, python_type: Any = Any) -> type:
    own = {"io_type": io_type, "published": published, "fixed": fixed or {}}
    parts = {
        "io_type": io_type,
        "Type": python_type,
        "Input": type("Input", (Input,), own),
        "Output": type("Output", (Output,), {"io_type": io_type}),
    }
    return type(io_type, (), parts)


def Custom(io_type: str) -> type:
    """A socket type of our own, with `.Input` and `.Output`."""
    return _kind(io_type)


Boolean = _kind("BOOLEAN", {**_WIDGET, "label_on": "label_on", "label_off": "label_off"}, python_type=bool)
Int = _kind("INT", {**_NUMBER, "control_after_generate": "control_after_generate"}, python_type=int)
Float = _kind("FLOAT", {**_NUMBER, "round": "round"}, python_type=float)
String = _kind(
    "STRING",
    {**_WIDGET, "multiline": "multiline", "placeholder": "placeholder", "dynamic_prompts": "dynamicPrompts"},
    {"multiline": False},
    python_type=str,
)
Image = _kind("IMAGE", python_type=torch.Tensor)
Mask = _kind("MASK", python_type=torch.Tensor)
Audio = _kind("AUDIO", python_type=dict)
Video = _kind("VIDEO")
Model = _kind("MODEL")
Vae = _kind("VAE")
Conditioning = _kind("CONDITIONING")
UpscaleModel = _kind("UPSCALE_MODEL")
AnyType = _kind("*")


class Combo:
    """A drop-down of file names or words; `upload` adds a button that fills the input folder."""

    io_type = "COMBO"
    Type = str

    class Input(Input):
        io_type = "COMBO"
        published = {**_WIDGET, "options": "options", "control_after_generate": "control_after_generate", "multiselect": "multiselect"}
        del published["force_input"]

        def __init__(
            self,
            id: str,
            options: Sequence[str | int] | type[Enum] | None = None,
            *,
            default: Any = None,
            upload: UploadType | None = None,
            **arguments: Any,
        ) -> None:
            if isinstance(options, type):
                options = [member.value for member in options]
            if isinstance(default, Enum):
                default = default.value
            if "multiselect" in arguments:
                raise TypeError(f"input {id!r} of type COMBO does not take multiselect")
            super().__init__(id, options=options, default=default, multiselect=False, **arguments)
            self.upload = upload

        def as_dict(self) -> dict[str, Any]:
            published = super().as_dict()
            if self.upload is not None:
                published[self.upload.value] = True
            return published


class DynamicCombo:
    """A drop-down whose choice decides which inputs follow; `execute` gets {id: choice, name: value, ...} under the input's id."""

    io_type = DYNAMIC_COMBO
    Type = dict

    @dataclass
    class Option:
        key: str
        inputs: list[Any]

    class Input(Input):
        io_type = DYNAMIC_COMBO
        published = {name: key for name, key in _SOCKET.items() if name in ("display_name", "tooltip", "lazy")}

        def __init__(self, id: str, options: list[DynamicCombo.Option], **arguments: Any) -> None:
            super().__init__(id, **arguments)
            self.options = options

        def as_dict(self) -> dict[str, Any]:
            options = [{"key": option.key, "inputs": published_inputs(option.inputs)} for option in self.options]
            return {**super().as_dict(), "options": options}


def published_inputs(inputs: Sequence[Input]) -> dict[str, dict[str, tuple[Any, ...]]]:
    """{"required": {id: (type, arguments)}, "optional": ...} as in /object_info; "optional" only when there is one."""
    sections: dict[str, dict[str, tuple[Any, ...]]] = {"required": {}}
    for one in inputs:
        sections.setdefault("optional" if one.optional else "required", {})[one.id] = (one.io_type, one.as_dict())
    return sections


@dataclass
class Schema:
    """The declaration of a node: name, inputs, outputs. `checked` raises ValueError when two inputs or two outputs share an id."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    description: str = ""
    search_aliases: list[str] = field(default_factory=list)
    is_input_list: bool = False
    is_output_node: bool = False
    is_deprecated: bool = False
    is_experimental: bool = False

    def checked(self) -> Schema:
        for what, ids in (("inputs", [i.id for i in self.inputs]), ("outputs", [o.id for o in self.outputs if o.id is not None])):
            twice = [name for name, count in Counter(ids).items() if count > 1]
            if twice:
                raise ValueError(f"node {self.node_id} has two {what} called {', '.join(twice)}; give each its own id")
        if self.is_output_node:
            self.hidden = [*self.hidden, *(h for h in (Hidden.prompt, Hidden.extra_pnginfo) if h not in self.hidden)]
        return self


class ComfyNode(ABC):
    """A node: stateless class methods around a schema."""

    hidden: Any = None

    @classmethod
    @abstractmethod
    def define_schema(cls) -> Schema: ...

    @classmethod
    @abstractmethod
    def execute(cls, **inputs: Any) -> Any: ...

    @classmethod
    def validate_inputs(cls, **inputs: Any) -> bool | str:
        raise NotImplementedError

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> Any:
        raise NotImplementedError

    @classmethod
    def check_lazy_status(cls, **inputs: Any) -> list[str]:
        return [name for name, value in inputs.items() if value is None]

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        return cls.define_schema().checked()

    @classmethod
    def GET_NODE_INFO_V1(cls) -> dict[str, Any]:
        """The node as /object_info publishes it, without the fields that only ComfyUI's own nodes use."""
        schema = cls.GET_SCHEMA()
        inputs = published_inputs(schema.inputs)
        if schema.hidden:
            inputs["hidden"] = {hidden.name: (hidden.value,) for hidden in schema.hidden}
        return {
            "input": inputs,
            "input_order": {section: list(names) for section, names in inputs.items()},
            "is_input_list": schema.is_input_list,
            "output": [o.io_type for o in schema.outputs],
            "output_is_list": [o.is_output_list for o in schema.outputs],
            "output_name": [o.display_name or o.io_type for o in schema.outputs],
            "output_tooltips": [o.tooltip for o in schema.outputs],
            "name": schema.node_id,
            "display_name": schema.display_name,
            "category": schema.category,
            "description": schema.description,
            "output_node": schema.is_output_node,
            "deprecated": schema.is_deprecated,
            "experimental": schema.is_experimental,
            "search_aliases": schema.search_aliases or None,
        }


class NodeOutput:
    """The return value of `execute`: one value per output, and the node's UI output (`ui`)."""

    def __init__(self, *args: Any, ui: Any = None) -> None:
        self.args = args
        self.ui = ui

    @property
    def result(self) -> tuple[Any, ...] | None:
        return self.args or None

    def __getitem__(self, index: int) -> Any:
        return self.args[index]


class ComfyExtension(ABC):
    """What `comfy_entrypoint` gives ComfyUI."""

    async def on_load(self) -> None:  # noqa: B027
        """Called once after loading."""

    @abstractmethod
    async def get_node_list(self) -> list[type[ComfyNode]]: ...
