"""One adapter per model family: load, encode a video, build the prompt, name the layers."""
