"""What ComfyUI's page shows besides sockets and widgets: previews, messages, translations."""
