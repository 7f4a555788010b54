"""Settings of a model. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from harness.setting import setting


@dataclass
class ModelConfig:
    """A model: which adapter loads which weights, and how.

    ``dtype`` and ``attention`` may be ``auto``: bfloat16 and the fastest backend on an accelerator, float32 and SDPA on
    a CPU. ``numerics`` answers with that attention backend as a cell of its own: a replicate that shows what rounding
    does; ``own`` is that of ``attention``, of which a cell's identity knows nothing. ``yarn_factor`` 1 leaves the
    rotary embedding alone; the releases use 4. ``tokens_per_frame`` is for plans; null where the picture's size
    decides, by ``pixels_per_token`` of each side. ``features_per_token`` is 1, and one more for every layer that
    features are added behind. ``layers``, ``hidden_size`` and ``vocabulary`` are those of the language model that the
    name promises; weights of another shape are reported as such. ``fetch`` is the command that gets the weights, with
    ``{hf}`` and ``{python}`` for these programs and ``{folder}`` for where to.
    """

    name: str = setting(name=True)
    adapter: str = setting()
    path: str = setting(runtime=True)
    fetch: str | None = setting(None, runtime=True)
    dtype: str = setting("auto", words=("auto", "float32", "bfloat16", "float16"))
    attention: str = setting("auto", words=("auto", "eager", "sdpa", "flash_attention_2"), runtime=True)
    numerics: str = setting("own", words=("own", "eager", "sdpa", "flash_attention_2"), neutral="own")
    device: str = setting("auto", runtime=True)
    device_map: str | None = setting(None, runtime=True)
    yarn_factor: float = setting(1.0, least=1, most=64)
    tokens_per_frame: int | None = setting(None, least=1, most=65536, runtime=True)
    pixels_per_token: int = setting(28, least=1, most=1024, runtime=True)
    features_per_token: int = setting(1, least=1, most=16, runtime=True)
    layers: int | None = setting(None, least=1, runtime=True)
    hidden_size: int | None = setting(None, least=1, runtime=True)
    vocabulary: int | None = setting(None, least=1, runtime=True)
