"""Tiny nodes that use every part of the node API our own nodes use, built against whichever `io` is given."""

from __future__ import annotations

from typing import Any


def sample_nodes(io: Any) -> dict[str, Any]:
    class Number(io.ComfyNode):
        """A source, counting how often it runs."""

        runs: list[Any] = []

        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="TNumber",
                display_name="Number",
                category="test",
                description="A number.",
                search_aliases=["constant"],
                inputs=[
                    io.Int.Input("seed", default=3, min=0, max=10, step=2, control_after_generate=True, tooltip="Seed."),
                    io.Float.Input("scale", default=1.0, min=-1.0, max=4.0, step=0.5, round=0.01, advanced=True),
                    io.Boolean.Input("negate", default=False, label_on="yes", label_off="no"),
                    io.String.Input("note", default="", multiline=True, placeholder="words", optional=True),
                    io.Combo.Input("mode", options=["fast", "slow"], default="slow", optional=True, tooltip="Mode."),
                ],
                outputs=[io.Float.Output("value", tooltip="The number."), io.String.Output(display_name="said")],
            )

        @classmethod
        def execute(cls, seed, scale, negate, note="unset", mode="unset"):
            Number.runs.append((seed, scale, negate, note, mode))
            return io.NodeOutput(seed * scale * (-1 if negate else 1), f"{note}|{mode}")

    class Filter(io.ComfyNode):
        """A choice with inputs of its own, and its own check of one input."""

        @classmethod
        def define_schema(cls):
            blur = [
                io.Float.Input("sigma", default=1.0, min=0.0, max=9.0),
                io.Int.Input("taps", default=5, optional=True),
                io.Combo.Input("edge", options=["wrap", "clip"], default="wrap"),
            ]
            inner = io.DynamicCombo.Input(
                "how", options=[io.DynamicCombo.Option("soft", [io.Float.Input("knee")]), io.DynamicCombo.Option("hard", [])]
            )
            return io.Schema(
                node_id="TFilter",
                display_name="Filter",
                category="test/more",
                is_experimental=True,
                inputs=[
                    io.Float.Input("value", force_input=True, tooltip="What goes in."),
                    io.DynamicCombo.Input(
                        "kind",
                        options=[io.DynamicCombo.Option("blur", blur), io.DynamicCombo.Option("clip", [inner]), io.DynamicCombo.Option("none", [])],
                        tooltip="Which.",
                    ),
                    io.Combo.Input("file", options=["a.mp4"], upload=io.UploadType.video),
                    io.Custom("T_STATE").Input("state", optional=True, lazy=True),
                    io.AnyType.Input("anything", optional=True),
                ],
                outputs=[
                    io.Float.Output("value"),
                    io.Custom("T_STATE").Output("state", tooltip="State."),
                    io.Int.Output("many", is_output_list=True),
                ],
            )

        @classmethod
        def validate_inputs(cls, file, kind):
            if file == "broken.mp4":
                return f"cannot read {file}"
            if file == "bug.mp4":
                raise KeyError(file)
            return True

        @classmethod
        def execute(cls, value, kind, file, **optional):
            return io.NodeOutput(value, {"kind": kind, "file": file, **optional}, [1, 2, 3])

    class Show(io.ComfyNode):
        """An output node."""

        shown: list[Any] = []

        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="TShow",
                display_name="Show",
                category="test",
                is_output_node=True,
                hidden=[io.Hidden.unique_id],
                inputs=[io.AnyType.Input("value"), io.Image.Input("image", optional=True)],
                outputs=[],
            )

        @classmethod
        def execute(cls, value, image=None):
            Show.shown.append(value)
            return io.NodeOutput(ui={"text": (f"{cls.hidden.unique_id}: {value}",)})

    return {"TNumber": Number, "TFilter": Filter, "TShow": Show}


def clip_name(io: Any) -> Any:
    """A node that names clip.mp4, for inputs that are widgets as a rule."""

    class Name(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(node_id="TName", category="test", inputs=[], outputs=[io.AnyType.Output("name")])

        @classmethod
        def execute(cls):
            return io.NodeOutput("clip.mp4")

    return Name


def sockets(io: Any) -> Any:
    """A node with one socket of every plain type, in and out; of a menu, which no node of ours gives, in only."""
    names = [
        "Image",
        "Mask",
        "Audio",
        "Video",
        "Model",
        "Vae",
        "Conditioning",
        "UpscaleModel",
        "AnyType",
        "Int",
        "Float",
        "String",
        "Boolean",
        "Combo",
    ]

    class Sockets(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            plain = [getattr(io, name) for name in names]
            inputs = [kind.Input(f"in{i}", optional=i % 2 == 0, display_name=f"Input {i}", tooltip=f"tip {i}") for i, kind in enumerate(plain)]
            outputs = [kind.Output(f"out{i}", display_name=f"Output {i}") for i, kind in enumerate(plain) if kind is not io.Combo]
            return io.Schema(node_id="TSockets", inputs=inputs, outputs=outputs)

        @classmethod
        def execute(cls, **inputs):
            return None

    return Sockets
