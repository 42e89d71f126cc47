"""What the tests of several rooms, and the programs that they start, share: small networks, tiny clips, a ComfyUI process."""
