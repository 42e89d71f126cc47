"""Linear operators: what a blur, a decimation, a mask or a grey picture keeps of the frames, with exact adjoints and pseudo-inverses."""
