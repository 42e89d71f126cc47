"""Face Video Restoration: ComfyUI loads this folder, pip installs it as `fvr`; nothing heavy is imported until it is used."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> object:
    from .nodes import FaceVideoRestoration

    return FaceVideoRestoration()
