"""What ComfyUI's page shows of the nodes besides their sockets and widgets, and in which words."""
